"""The view of the runs that answers what this project asks: which model, on what, how robust.

MLflow's page keeps a shared view as a tag of the experiment, and an address names it by its key:
what its button `Share` makes, with the filter, the order and the columns chosen here.
"""

import json

KEY = "robustness"
LOCAL = "http://127.0.0.1:5000"  # where `mlflow ui` and `mlflow server` listen by themselves
# Names of metrics as in `names.py`; the most robust under the joint attack comes first.
SORTED_BY = "metrics.`test/robust_acc/both`"
COLUMNS = (
    *("attributes.`Dataset`", "attributes.`Models`", "tags.`variant`", "params.`train.method`"),
    *("metrics.`test/clean_acc`", SORTED_BY),
    *("metrics.`test/robust_acc/rgb`", "metrics.`test/robust_acc/skeleton`"),
)
STATE = {
    "searchFilter": "tags.stage = 'train'",
    "orderByKey": SORTED_BY,
    "orderByAsc": False,
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "modelVersionFilter": "All Runs",
    "datasetsFilter": [],
    "selectedColumns": list(COLUMNS),
}
VIEW_TAG = {f"mlflow.sharedViewState.{KEY}": json.dumps(STATE)}


def view_address(server: str, experiment_id: str) -> str:
    """Where a browser finds the view, in MLflow's pages for training. server: http://HOST:PORT."""
    page = f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs"
    return f"{page}?workflowType=machine_learning&viewStateShareKey={KEY}"
