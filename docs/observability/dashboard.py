"""Draw the dashboard without Grafana: `python docs/observability/dashboard.py`.

Asks a running Prometheus for every panel of deploy/grafana/dashboard.json and writes
dashboard.png beside this file.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

HERE = Path(__file__).parent
DASHBOARD = HERE.parents[1] / "deploy" / "grafana" / "dashboard.json"
COLUMNS = 3
POINTS = 120
UNITS = {
    "s": "seconds", "reqps": "requests/s", "rowsps": "rows/s", "Bps": "bytes/s",
    "bytes": "bytes", "percentunit": "share", "short": "",
}  # fmt: skip


def main() -> None:
    """Draw the last minutes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prometheus", default="http://localhost:9090")
    parser.add_argument("--minutes", type=float, default=5)
    options = parser.parse_args()
    end = time.time()
    start = end - 60 * options.minutes
    with httpx.Client(base_url=options.prometheus) as client:
        draw(client, start, end)


def draw(client: httpx.Client, start: float, end: float) -> None:
    """Draw every panel between two times (Unix seconds), under the titles of their rows."""
    mpl.use("agg")
    panels = json.loads(DASHBOARD.read_text())["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(20, height * 0.42), layout="constrained")
    grid = figure.add_gridspec(height, COLUMNS)
    for panel in panels:
        at = panel["gridPos"]
        if panel["type"] == "row":
            axes = figure.add_subplot(grid[at["y"], :])
            axes.axis("off")
            axes.text(0, 0.2, panel["title"], fontsize=18, weight="bold")
            continue
        axes = figure.add_subplot(grid[at["y"] : at["y"] + at["h"], at["x"] // 8])
        draw_panel(axes, panel, client, start, end)
    figure.savefig(HERE / "dashboard.png", dpi=60)


def draw_panel(
    axes: Axes, panel: dict[str, Any], client: httpx.Client, start: float, end: float
) -> None:
    """Draw one panel's queries as lines over minutes."""
    for target in panel["targets"]:
        expression = target["expr"].replace("$__rate_interval", "30s").replace("$instance", ".*")
        step = (end - start) / POINTS
        asked = {"query": expression, "start": start, "end": end, "step": step}
        answer = client.get("/api/v1/query_range", params=asked).raise_for_status().json()
        for series in answer["data"]["result"]:
            times = [(float(at) - start) / 60 for at, _ in series["values"]]
            values = [float(value) for _, value in series["values"]]
            axes.plot(times, values, label=legend(target["legendFormat"], series["metric"]))
    axes.set_title(panel["title"], loc="left")
    axes.set_ylabel(UNITS[panel["fieldConfig"]["defaults"]["unit"]])
    axes.set_xlim(0, (end - start) / 60)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("minutes")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", fontsize=8)


def legend(form: str, labels: dict[str, str]) -> str:
    """Return Grafana's ``{{label}}`` form, filled in."""
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), form)


if __name__ == "__main__":
    main()
