# syntax=docker/dockerfile:1
# A server for machines without a GPU, from the project's locks, with the embedded model in it:
#   docker build --file deploy/docker/cpu.Dockerfile --tag sensefield:cpu .

FROM python:3.11.14-slim-bookworm AS build
# The image writes no bytecode when it runs: it is compiled here.
ENV PIP_NO_CACHE_DIR=1 UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1
WORKDIR /src
# The engine changes less often than the project, so it is a layer of its own.
COPY requirements/install.py requirements/uv.txt requirements/torch-cpu.txt requirements/cpu.txt requirements/
RUN python requirements/install.py /opt/sensefield cpu
ENV PATH=/opt/sensefield/bin:$PATH VIRTUAL_ENV=/opt/sensefield
COPY . .
RUN uv pip install --no-deps .
# What vectors in an object store need, s3fs for example: --build-arg STORE=s3fs
ARG STORE=""
RUN test -z "$STORE" || uv pip install --only-binary :all: --constraint requirements/cpu.txt "$STORE"
ENV SENSEFIELD_CACHE_DIR=/opt/sensefield/models
RUN python -c "from service.embedded_model import embedded_model_dir; embedded_model_dir()"

FROM python:3.11.14-slim-bookworm
# A release of Debian changes them for security only.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 libnuma1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --home-dir /data --create-home sensefield
COPY --from=build /opt/sensefield /opt/sensefield
COPY --chmod=755 deploy/docker/ready.py /usr/local/bin/sensefield-ready
# All that is written goes to /data and /tmp: the rest of the file system may be read-only.
ENV PATH=/opt/sensefield/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    SENSEFIELD_CACHE_DIR=/opt/sensefield/models \
    VLLM_CPU_KVCACHE_SPACE=1 \
    VLLM_NO_USAGE_STATS=1 \
    XDG_CACHE_HOME=/data/cache \
    XDG_CONFIG_HOME=/data/config \
    XDG_DATA_HOME=/data
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=5m --retries=3 \
    CMD ["sensefield-ready"]
ENTRYPOINT ["sensefield", "serve"]
