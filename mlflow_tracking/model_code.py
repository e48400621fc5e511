"""The registered model as code: MLflow runs this file, so that nothing has to be unpickled.

It answers DataFrames (or JSON) with the columns `video_base64` and `skeleton_text`, or `rgb`,
`skeleton` and (optional) `present`. Whatever is wrong with a request is an error of the caller,
which MLflow's scoring server turns into HTTP 400 with the reason.
"""

from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.pyfunc import PythonModel

from mlflow_tracking.scoring_server import answer_malformed_requests
from mlflow_tracking.serving import BadInput, Predictor, join

RAW = ("video_base64", "skeleton_text")
ARRAYS = ("rgb", "skeleton")
MAX_CLIPS = 64


class RobustClassifier(PythonModel):
    """MLflow's view of a `Predictor`."""

    def load_context(self, context: Any) -> None:
        """Read the weights (safetensors) and the settings (JSON)."""
        answer_malformed_requests()
        files = context.artifacts
        self.predictor = Predictor.load(files["checkpoint"], files["serving"])

    # Any other type hint of model_input MLflow would take for a schema, and none makes it complain.
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """One row of answers per clip."""
        try:
            return pd.DataFrame(self._answers(_rows(model_input)))
        except BadInput as error:
            raise MlflowException(str(error), error_code=BAD_REQUEST) from error

    def _answers(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        batches = []
        for number, row in enumerate(rows):
            try:
                if any(row.get(key) is not None for key in RAW):
                    batches.append(self.predictor.prepare_request(*(row.get(k) for k in RAW)).batch)
                else:
                    rgb, skeleton = (row.get(key) for key in ARRAYS)
                    batches.append(self.predictor.check_arrays(rgb, skeleton, row.get("present")))
            except BadInput as error:
                raise BadInput(f"clip {number}: {error}") from error
        return self.predictor.predict(join(batches))


def _rows(table: Any) -> list[dict[str, Any]]:
    """The clips of a request, one dictionary each, None where a cell is empty."""
    if not isinstance(table, pd.DataFrame):
        raise BadInput(f"expected a table of clips, got {type(table).__name__}")
    columns = set(table.columns)
    if not (set(RAW) <= columns or set(ARRAYS) <= columns):
        raise BadInput(
            f"each clip needs {' and '.join(RAW)}, or {' and '.join(ARRAYS)} (and present); "
            f"got {sorted(map(str, columns)) or 'none of them'}"
        )
    # A dictionary of lists arrives as one row of lists.
    texts = [key for key in RAW if key in columns]
    if len(table) == 1 and texts and all(isinstance(table[key].iloc[0], list) for key in texts):
        lists = [table[key].iloc[0] for key in texts]
        if len({len(values) for values in lists}) > 1:
            raise BadInput(f"{' and '.join(texts)} hold different numbers of clips")
        table = pd.DataFrame(dict(zip(texts, lists, strict=True)))
    if not 1 <= len(table) <= MAX_CLIPS:
        raise BadInput(f"a request holds 1 to {MAX_CLIPS} clips, got {len(table)}")
    return [
        {key: None if _empty(value) else value for key, value in row.items()}
        for row in table.to_dict("records")
    ]


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


set_model(RobustClassifier())
