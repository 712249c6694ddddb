"""Export the student of ``fast=True`` to one ONNX file, which needs no PyTorch, and load it.

The file scores prepared rows in float64: its graph contains scaler, inputs and experts. Its
metadata contain the preparation of texts and gaps, the threshold, and scores of training rows, so
that ``python SwiftHydra.py score`` takes it like a checkpoint. It holds no training row, only
medians and ranges of the columns, centres that are means of rows, and weights.
"""

import copy
import importlib.util
import io
import json
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from swift_hydra.data.learned_columns import Columns
from swift_hydra.data.rows import classes_of
from swift_hydra.data.scaler import LARGEST, MOST_DEVIATIONS
from swift_hydra.distillation.student import FARTHEST
from swift_hydra.estimator import TableDetector
from swift_hydra.files import content_of, looked_at, write_bytes
from swift_hydra.geometry import BEND
from swift_hydra.modes import own_modes
from swift_hydra.settings import InputError, check_range, place_of
from swift_hydra.snapshot import plain
from swift_hydra.thresholds import threshold_of_false_alarms

KIND = "swift-hydra student 1"
SUFFIX = ".onnx"
LARGEST_FILE = 256 * 2**20  # bytes of a file; ours has well under one MiB at 30 columns
MEMORY = 4 * 2**30  # bytes that the graph may take, since a file from anywhere may ask for more
NORMAL_SCORES = 2000  # most normal rows' scores in the file, used for p-values
MOST_NORMALS = 10**8
OPSET = 17
MISSING = "needs the packages onnx and onnxruntime: pip install onnx onnxruntime"


class _Graph(nn.Module):
    """The exported graph, from prepared rows (n, d) float64 to scores (n,) float64."""

    def __init__(self, student, scaler):
        super().__init__()
        self.student = student
        self.network = copy.deepcopy(student.network).eval()
        self.network.backend = "torch"
        self.register_buffer("centre", torch.from_numpy(scaler.centre))
        self.register_buffer("scale", torch.from_numpy(scaler.scale))
        skewed = scaler.start > 0
        self.any_skewed = bool(skewed.any())
        # Of other columns no power is taken: there 1 stands for what may be 0.
        for name, values in {
            "skewed": skewed,
            "unit": np.where(skewed, scaler.centre, 1.0),
            "start": np.where(skewed, scaler.start, 1.0),
            "end": np.minimum(scaler.end, LARGEST),
            "is_root": scaler.power > 0,
            "power": np.where(scaler.power > 0, scaler.power, 1.0),
        }.items():
            self.register_buffer(name, torch.from_numpy(values))

    def _moved(self, X):
        """What is divided by the scale, as :meth:`data.scaler.ColumnScaler.deviations` has it."""
        moved = X - self.centre
        if not self.any_skewed:
            return moved
        ratio = X / self.unit
        above = ratio.clamp(self.start, self.end)
        root = (above**self.power - 1) / self.power
        slope, last = (
            torch.where(self.is_root, at**self.power, 1.0) / at for at in (self.start, self.end)
        )
        straight = torch.where(self.is_root, root, torch.log(above))
        straight = straight + (ratio - self.start).clamp(max=0.0) * slope
        straight = straight + (ratio - self.end).clamp(min=0.0) * last
        return torch.where(self.skewed, torch.sign(self.unit) * straight, moved)

    def forward(self, X):
        u = (self._moved(X) / self.scale).clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS)
        inputs = self.student.inputs((u / torch.sqrt(1 + (u / BEND) ** 2)).float())
        gates, chosen = self.network.route(inputs)
        each = self.network.experts(inputs).T  # (n, E)
        value = (each.gather(1, chosen) * gates).sum(1).double()
        value = value.clamp(-FARTHEST, FARTHEST)
        # ONNX has sinh only for float32.
        return self.student.middle + self.student.spread * (value.exp() - (-value).exp()) / 2


def require_onnx(fast):
    """Refuse an impossible export before the work.

    Args:
        fast: there is, or will be, a student.

    Raises:
        InputError: there is no student, or the package onnx is missing.
    """
    if not fast:
        raise InputError("export needs the student: fit with fast=True (--fast)")
    if importlib.util.find_spec("onnx") is None:
        raise InputError(f"export {MISSING}")


@own_modes()
def onnx_bytes(detector):
    """The ONNX file of a fitted detector with a student.

    Raises:
        InputError: there is no student, it does not follow its detector while ``verify`` is not 0,
            or the package onnx is missing.
    """
    require_onnx(getattr(detector, "student_", None) is not None)
    if not (detector.student_.follows or detector.verify == 0):
        raise InputError(
            "export: the student does not follow its detector on this table, its scores would be "
            "others: give verify=0 (--verify 0) to export it all the same"
        )
    import onnx

    # The file holds only the student: threshold and p-values must be those without verification.
    detector = copy.copy(detector).set_verify(0.0)
    scaler = detector.columns_.scaler
    rows = torch.from_numpy(scaler.centre + np.linspace(-1, 1, 5)[:, None] * scaler.scale)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing takes the sizes d and E for constants
        torch.onnx.export(
            _Graph(detector.student_, scaler),
            (rows,),
            buffer,
            input_names=["X"],
            output_names=["score"],
            dynamic_axes={"X": {0: "n"}, "score": {0: "n"}},
            opset_version=OPSET,
            dynamo=False,  # the newer exporter needs another package
        )
    model = onnx.load_from_string(buffer.getvalue())
    normal = detector.normal_scores_
    # All of the highest scores, on which thresholds for rare alarms depend, and some of the others.
    highest = max(len(normal) - NORMAL_SCORES // 2, 0)
    some = np.linspace(0, highest, min(highest, NORMAL_SCORES // 2) + 1).round().astype(int)
    some = np.unique(np.concatenate([some[some < highest], np.arange(highest, len(normal))]))
    content = {
        "kind": KIND,
        "columns": _plain(detector.columns_.snapshot()),
        "n_features": detector.n_features_in_,
        "classes": plain(detector.classes_),
        "label_name": detector.label_name_,
        "dates": detector.settings_["dates"],
        "preset": detector.settings_["preset"],
        "threshold": detector.threshold_ if np.isfinite(detector.threshold_) else None,
        "normal_scores": normal[some].tolist(),
        "normal_ranks": some.tolist(),
        "n_groups": detector.n_groups_,
        "flagged": detector._flagged(),
        "agreement": detector.student_.agreement,
    }
    onnx.helper.set_model_props(model, {"swift_hydra": json.dumps(content)})
    return model.SerializeToString()


def write_onnx(detector, path):
    """Write :func:`onnx_bytes` to a file, atomically."""
    write_bytes(path, onnx_bytes(detector))


class Exported(TableDetector):
    """A file of :func:`write_onnx` as a detector that scores; :meth:`load` reads it."""

    @classmethod
    def load(cls, path):
        """Read the file.

        Raises:
            InputError: onnxruntime is missing, or the file is missing, damaged or of another kind.
        """
        try:
            import onnxruntime
        except ModuleNotFoundError:
            raise InputError(f"{path}: {MISSING}") from None
        path = place_of(path)
        with looked_at(path):
            is_file = Path(path).is_file()
        if not is_file:
            state = "is a folder" if Path(path).is_dir() else "does not exist"
            raise InputError(f"{path}: {state}: give the file that export wrote")
        if not os.access(path, os.R_OK):
            raise InputError(f"{path}: cannot be read: check its permissions")
        with content_of(path):
            if Path(path).stat().st_size > LARGEST_FILE:
                raise ValueError(f"more than {LARGEST_FILE} bytes")
            self = cls()
            # From bytes: then a graph cannot make onnxruntime read other files.
            self.detector_ = onnxruntime.InferenceSession(
                Path(path).read_bytes(), _bounded(onnxruntime), providers=["CPUExecutionProvider"]
            )
            content = json.loads(
                self.detector_.get_modelmeta().custom_metadata_map.get("swift_hydra", "{}")
            )
            if content.get("kind") != KIND:
                raise ValueError(f"kind is {content.get('kind')!r}, not {KIND!r}")
            self.n_features_in_ = content["n_features"]
            self.columns_ = Columns.from_snapshot(_arrays(content["columns"]), self.n_features_in_)
            self.classes_ = classes_of(content["classes"])
            self.label_name_ = content["label_name"]
            self.settings_ = {"dates": content["dates"]}
            self.settings_["preset"] = content.get("preset")  # older files do not say it
            self.normal_scores_ = _normal_scores(content)
            self.n_groups_ = content.get("n_groups")  # older files do not say it
            threshold = content["threshold"]
            self.threshold_ = np.inf if threshold is None else float(threshold)
            self.student_ = None
            self.flagged_ = float(content.get("flagged", 0))  # older files do not say it
            self.score_prepared(np.stack([self.columns_.centre, self.columns_.low]))
        return self._name_features()

    @classmethod
    def is_whole(cls, path):
        """Can the file be used? A crash may have left it empty or cut."""
        try:
            return bool(cls.load(path))
        except InputError:
            return False

    def _scores_of_prepared(self, X):
        return self.detector_.run(None, {"X": self.columns_.scaler.widened(X)})[0]

    def _flagged(self):
        return self.flagged_

    def checkpoint(self, fingerprint=None):
        """Not available, raises InputError: only the loaded file exists."""
        raise InputError("an exported student is the file that it was loaded from: copy that")

    def set_contamination(self, contamination):
        """Not available, raises InputError: the file does not hold all training rows' scores."""
        raise InputError(
            "an exported student does not hold the training rows' scores: give a share of normal "
            "rows with set_false_alarms (--false-alarms)"
        )

    def set_verify(self, share):
        """Not available, raises InputError: the file has no full detector to verify scores."""
        raise InputError("an exported student is alone: no detector can verify its scores")

    def set_false_alarms(self, share):
        """As :meth:`estimator.TableDetector.set_false_alarms`, without the training rows' labels.

        Args:
            share: the share of normal rows to flag, the false-alarm rate.
        """
        check_range("false_alarms", share, 0, 0.99, whole=False)
        self.tell_if_not_left_out()
        before = self.threshold_
        self.threshold_ = threshold_of_false_alarms(
            self.normal_scores_, plain(share), self._rounding(), self.n_groups_
        )
        # Of the scores of known anomalies nothing is in the file: as many of them stay flagged.
        usual, now = ((self.normal_scores_ > each).mean() for each in (before, self.threshold_))
        self.flagged_ = float(np.clip(self.flagged_ + now - usual, 0, 1))
        self.false_alarms = share
        return self


def _normal_scores(content):
    """The normal rows' scores, ascending; those not in the file are interpolated."""
    some = np.sort(np.array(content["normal_scores"], dtype=np.float64))
    ranks = content.get("normal_ranks")  # older files have none
    if ranks is None:
        return some
    ranks = np.array(ranks, dtype=np.int64)
    if ranks.shape != some.shape or not len(ranks) or (np.diff(ranks) < 1).any():
        raise ValueError("the normals' scores and their ranks do not fit together")
    if ranks[0] != 0 or ranks[-1] >= MOST_NORMALS:
        raise ValueError("the normals' ranks are out of bounds")
    return np.interp(np.arange(ranks[-1] + 1), ranks, some)


def _bounded(onnxruntime):
    """Session options with at most ``MEMORY`` bytes: a small graph can ask for any amount."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Waiting threads that spin would take cores from working ones.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    options.add_session_config_entry("session.use_env_allocators", "1")
    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg(MEMORY, -1, -1, -1))
    return options


def _plain(value):
    """Nested dicts with arrays turned into lists that keep the array's type."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    return value.item() if isinstance(value, np.generic) else value


def _arrays(value):
    """The inverse of :func:`_plain`."""
    if isinstance(value, dict):
        if value.keys() == {"array", "dtype"}:
            return np.array(value["array"], dtype=value["dtype"])
        return {name: _arrays(item) for name, item in value.items()}
    return [_arrays(item) for item in value] if isinstance(value, list) else value
