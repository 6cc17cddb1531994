"""The frozen configuration of one training: its groups, its dotted keys, its validation.

A configuration is checked once, here, and passed on as it is. Everything outside speaks of it by
dotted keys (``train.lr``), which are the names in study files, on the command line and in MLflow.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from .common.messages import one_line, short
from .common.paths import given_path, is_folder
from .errors import InputError


def _spelling(value: object) -> object:
    """Read ``round_robin`` as ``round-robin``: the same word, however it is written."""
    return value.replace("_", "-") if isinstance(value, str) else value


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _tuple(value: object) -> object:
    """Read a TOML list as a tuple: what is frozen must hold nothing that changes."""
    return tuple(value) if isinstance(value, list) else value


TaskName = Literal["sst", "para", "sts"]
ALL_TASKS: tuple[TaskName, ...] = ("sst", "para", "sts")
_LARGEST = 1e30  # of a factor that kernels take as float32, or as a tenth of it
TaskNames = Annotated[
    tuple[TaskName, ...],
    BeforeValidator(_tuple),
    AfterValidator(lambda tasks: tuple(t for t in ALL_TASKS if t in tasks)),
    Field(min_length=1),
]


class DataConfig(_Group):
    """Where the examples come from."""

    path: str = Field("demo", min_length=1, description="folder with the data files, or demo")


class TrainConfig(_Group):
    """The recipe of a training. Defaults are the paper's (section 5.3)."""

    epochs: int = Field(100, ge=1, le=1_000_000, description="number of epochs")
    steps_per_epoch: int = Field(
        300, ge=0, le=100_000_000, description="batches an epoch; 0 means the whole dataset"
    )
    batch_size: int = Field(16, ge=1, le=65_536, description="examples a batch")
    lr: float = Field(1e-5, gt=0, le=_LARGEST, description="learning rate of AdamW")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay of AdamW")
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up; constant after that")
    grad_clip: float = Field(0.0, ge=0, description="largest norm of the gradient; 0 means any")
    dropout: float = Field(0.3, ge=0, lt=1, description="dropout before each head")
    seed: int = Field(11711, ge=0, lt=2**63, description="seed of every random stream")
    precision: Annotated[Literal["auto", "float32", "bfloat16"], BeforeValidator(_spelling)] = (
        Field("auto", description="auto takes bfloat16 where the hardware multiplies it")
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N"
    )
    eval_every: int = Field(1, ge=1, description="epochs between evaluations on the dev sets")
    eval_limit: int = Field(
        0, ge=0, description="dev examples of each task while training; 0 means all, as the best is"
    )
    mode: Annotated[Literal["full-model", "last-linear-layer"], BeforeValidator(_spelling)] = Field(
        "full-model", description="what trains beside the adapters"
    )


class LoraConfig(_Group):
    """Low-rank adaptation (Hu et al. 2021) as the paper runs it: h = W0 x + alpha B A x."""

    rank: int = Field(0, ge=0, le=4096, description="rank of LoRA; 0 means none")
    alpha: float = Field(1.0, gt=0, description="factor of B A x, direct, not divided by the rank")


def _kind(value: object) -> object:
    """Read ``pals-shared`` as ``shared``."""
    value = _spelling(value)
    return value.removeprefix("pals-") if isinstance(value, str) else value


class PalsConfig(_Group):
    """Parallel adaptation layers (Stickland & Murray 2019), see :mod:`minbert.adapters.pals`."""

    kind: Annotated[
        Literal["none", "low-rank", "pals", "shared", "shared-attention", "mixed"],
        BeforeValidator(_kind),
    ] = Field("none", description="form of the task-specific layers")
    placement: Literal["original", "alternative"] = Field(
        "original", description="into the second norm's residual, or the attention heads' output"
    )
    tasks: TaskNames = Field(ALL_TASKS, description="tasks that have such layers")


class SmartConfig(_Group):
    """SMART (Jiang et al. 2020), see :mod:`minbert.training.smart`."""

    weight: float = Field(
        0.0, ge=0, alias="lambda", description="weight of the regulariser; 0 means none"
    )
    alpha: float = Field(1e-5, gt=0, le=_LARGEST, description="radius of the ball of perturbations")
    mode: Literal["adversarial", "noise"] = Field(
        "adversarial", description="ascend the divergence, or take random noise as the paper ran it"
    )
    norm: Literal["linf", "l2"] = Field(
        "linf", description="norm of the ball: of each element, or of a whole sequence"
    )
    steps: int = Field(1, ge=1, le=100, description="ascent steps (adversarial)")
    step_size: float = Field(1e-3, gt=0, description="length of an ascent step (adversarial)")
    proximal: float = Field(
        0.0, ge=0, description="weight of the Bregman proximal point term; 0 means none"
    )
    momentum: float = Field(
        0.99, ge=0, lt=1, description="of the averaged teacher in the proximal term"
    )

    @property
    def on(self) -> bool:
        """Whether anything of it is used."""
        return self.weight > 0 or self.proximal > 0


class ScheduleConfig(_Group):
    """Which task the next batch comes from."""

    policy: Annotated[
        Literal["annealed", "random", "round-robin", "proportional", "square-root"],
        BeforeValidator(_spelling),
    ] = Field("annealed", description="how the next task is chosen")
    per: Literal["batch", "epoch"] = Field("batch", description="choose for each batch or epoch")
    anneal: float = Field(
        0.8, ge=0, le=1, description="c in alpha = 1 - c (e-1)/(E-1), the annealing (equation 1)"
    )
    tasks: TaskNames = Field(ALL_TASKS, description="tasks that are trained; all are evaluated")

    @model_validator(mode="after")
    def _sampling_is_per_batch(self) -> ScheduleConfig:
        if self.per == "epoch" and self.policy not in ("random", "round-robin"):
            raise ValueError(
                f"schedule.per: {self.policy} sampling draws a task for each batch; use batch, "
                "or schedule.policy random or round-robin"
            )
        return self


class KeyInfo(NamedTuple):
    """One configuration key: its type in words, and the values it can have if they are words."""

    key: str
    type: str
    default: object
    meaning: str
    choices: tuple[str, ...] = ()


class Config(_Group):
    """One training, whole. Equal configurations train equal models."""

    backbone: str = Field("demo", min_length=1, description="folder, Hugging Face id, or demo")
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    lora: LoraConfig = LoraConfig()
    pals: PalsConfig = PalsConfig()
    smart: SmartConfig = SmartConfig()
    schedule: ScheduleConfig = ScheduleConfig()

    @model_validator(mode="after")
    def _smart_needs_float32(self) -> Config:
        if self.smart.on and self.train.precision == "bfloat16":
            raise ValueError(
                "train.precision: SMART's perturbation drowns in bfloat16; use float32 or auto"
            )
        return self

    @classmethod
    def from_keys(cls, flat: Mapping[str, object]) -> Config:
        """Make a configuration from dotted keys; what is not named keeps its default.

        Folders are made absolute, so that a training can be resumed from anywhere.

        Raises:
            InputError: an unknown key (the nearest known one is named) or a value that does not
                fit (the key and what would be right are named).
        """
        nested: dict[str, Any] = {}
        for key, value in flat.items():
            check_key(key)
            group, _, name = key.rpartition(".")
            target = nested.setdefault(group, {}) if group else nested
            target[name] = _absolute(value) if key in _FOLDER_KEYS else value
        try:
            return cls(**nested)
        except ValidationError as error:
            raise InputError(one_line(error)) from None

    def to_keys(self) -> dict[str, Any]:
        """Return every key with its value, flat: ``{"backbone": ..., "train.lr": ...}``."""
        flat: dict[str, Any] = {}
        for name, value in self.model_dump(by_alias=True).items():
            if isinstance(value, dict):
                flat.update({f"{name}.{key}": _as_list(inner) for key, inner in value.items()})
            else:
                flat[name] = value
        return flat


def _as_list(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


_FOLDER_KEYS = frozenset({"backbone", "data.path"})


def _absolute(value: object) -> object:
    """Make a folder's path absolute; leave names (demo, Hugging Face ids) as they are."""
    if isinstance(value, str) and value not in ("", "demo") and "\0" not in value:
        path = given_path(value)
        if is_folder(path):
            return str(path.resolve())
    return value


def describe_keys() -> list[KeyInfo]:
    """List every configuration key with its type in words, default and meaning."""
    rows = []
    for name, field in Config.model_fields.items():
        if name == "backbone":
            rows.append(KeyInfo(name, "str", field.default, field.description or ""))
            continue
        for inner, part in type(field.default).model_fields.items():
            words = _type_words(part.annotation)
            key = f"{name}.{part.alias or inner}"
            choices = _words(part.annotation)
            rows.append(KeyInfo(key, words, part.default, part.description or "", choices))
    return rows


def _words(annotation: Any) -> tuple[str, ...]:
    """Return what a key can be, where that is one of a few words."""
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _type_words(annotation: Any) -> str:
    choices = getattr(annotation, "__args__", None)
    if choices and choices[-1] is Ellipsis:
        return f"list of {_type_words(choices[0])}"
    return " | ".join(map(str, choices)) if choices else annotation.__name__


KEYS: tuple[str, ...] = tuple(info.key for info in describe_keys())


def check_key(key: str) -> None:
    """Refuse a key that does not exist.

    Raises:
        InputError: naming the nearest known key.
    """
    if key in KEYS:
        return
    near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.5)
    near = near or [known for known in KEYS if known.rpartition(".")[2] == key.rpartition(".")[2]]
    hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(KEYS)}"
    raise InputError(f"{short(key)} is not a configuration key; {hint}")


def canonical(key: str, value: object) -> Any:
    """Return a value as a configuration keeps it: tasks in order and each once, words in one
    spelling, folders absolute. Two values that mean the same are the same then.

    Raises:
        InputError: an unknown key, or a value that does not fit it whatever the others are.
    """
    check_key(key)
    given = _absolute(value) if key in _FOLDER_KEYS else value
    try:
        return _as_list(_field(key).validate_python(given))
    except ValidationError as error:
        raise InputError(one_line(error, key)) from None


@cache
def _field(key: str) -> TypeAdapter:
    group, _, name = key.rpartition(".")
    model = type(Config.model_fields[group].default) if group else Config
    fields = model.model_fields.items()
    field = next(field for inner, field in fields if name == (field.alias or inner))
    return TypeAdapter(field.rebuild_annotation(), config=_Group.model_config)
