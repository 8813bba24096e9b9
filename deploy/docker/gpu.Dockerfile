# syntax=docker/dockerfile:1
# The project on vLLM's own image of the version it supports, whose engine stays as it is:
#   docker build --file deploy/docker/gpu.Dockerfile --tag sensefield:gpu .
#   docker run --gpus all --shm-size 8g --publish 8000:8000 sensefield:gpu Qwen/Qwen3-8B

FROM vllm/vllm-openai:v0.32.0
# The image writes no bytecode when it runs: it is compiled here.
ENV PIP_NO_CACHE_DIR=1 UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1
WORKDIR /src
COPY . .
# What vectors in an object store need, s3fs for example: --build-arg STORE=s3fs
ARG STORE=""
# The constraints hold vLLM where it is, and what both need at the versions that were tested together.
RUN python3 -m pip install --no-deps --requirement requirements/uv.txt \
    && uv pip install --system --only-binary :all: --constraint requirements/gpu.txt . ${STORE:+"$STORE"} \
    && useradd --uid 10001 --home-dir /data --create-home sensefield \
    && rm -rf /src/*
COPY --chmod=755 deploy/docker/ready.py /usr/local/bin/sensefield-ready
# All that is written goes to /data and /tmp: the rest of the file system may be read-only.
ENV HF_HOME=/data/huggingface \
    PYTHONDONTWRITEBYTECODE=1 \
    VLLM_NO_USAGE_STATS=1 \
    XDG_CACHE_HOME=/data/cache \
    XDG_CONFIG_HOME=/data/config \
    XDG_DATA_HOME=/data
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m --retries=3 \
    CMD ["sensefield-ready"]
ENTRYPOINT ["sensefield", "serve"]
