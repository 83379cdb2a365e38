"""The MLflow model: this file is logged as code, and carries a bundle as its artifact."""

from __future__ import annotations

from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext

from themewire import load
from themewire.errors import InputRefused
from themewire.predict import Predictor


class TaggingModel(PythonModel):
    """Rows with `title` and/or `text` in, one output record a row out."""

    predictor: Predictor

    def load_context(self, context: PythonModelContext) -> None:
        """Load the bundle, which is checked against its manifest first."""
        self.predictor = load(context.artifacts["bundle"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: Any = None
    ) -> pd.DataFrame:
        """Tag each row of a frame with the columns `title`, `text` and, if it likes, `id`."""
        present = model_input[[c for c in ("id", "title", "text") if c in model_input]]
        records = [
            {key: value for key, value in row.items() if isinstance(value, str)}
            for row in present.to_dict("records")
        ]
        try:
            found = self.predictor.predict(records)
        except InputRefused as refused:
            raise MlflowException(str(refused), error_code=INVALID_PARAMETER_VALUE) from refused
        return pd.DataFrame([prediction.to_dict() for prediction in found])


set_model(TaggingModel())
