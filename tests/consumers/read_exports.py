"""Reads every exported table back with pandas and pyarrow, and compares the two formats and the result file.

python read_exports.py results/quickstart      after  outlier run scripts/analyze.rhai --tables csv  and  --tables parquet
Needs pandas and pyarrow; `make export-test` installs them in an environment of its own.
"""

import json
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

NAMES = ["features", "features_per_sequence", "norms", "sequences", "magnitudes"]


def main(folder: Path) -> None:
    tables = folder / "tables"
    final = json.loads((folder / "final_analysis_results.json").read_text())
    for path in sorted(tables.glob("*.parquet")):
        parquet = pq.read_table(path)
        frame, csv = parquet.to_pandas(), pd.read_csv(path.with_suffix(".csv"))
        assert list(frame.columns) == list(csv.columns), path
        assert len(frame) == len(csv) == parquet.num_rows, path
        for name in frame.columns:
            one, other = frame[name], csv[name]
            if pd.api.types.is_numeric_dtype(one) and pd.api.types.is_numeric_dtype(other):
                assert ((one - other).abs().fillna(0) <= 1e-12 * one.abs().fillna(1)).all(), (path, name)
                assert (one.isna() == other.isna()).all(), (path, name)
            else:
                assert (one.fillna("").astype(str) == other.fillna("").astype(str)).all(), (path, name)
        print(f"{path.stem}: {len(frame)} rows, {len(frame.columns)} columns, {dict(frame.dtypes.astype(str).value_counts())}")
    for name in NAMES:
        assert (tables / f"{name}.parquet").exists(), name
    features = pd.read_parquet(tables / "features.parquet")
    pooled = final["pooled"]["features"]
    assert features["feature_dim"].tolist() == [f["feature_dim"] for f in pooled]
    assert features["layer_percentage"].tolist() == [f["layer_percentage"] for f in pooled]
    summary = pd.read_csv(folder.parent / "summary.csv")
    assert folder.name in summary["name"].tolist()
    print("tables, result and summary agree")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
