"""How variants are made: our recipes, and single libraries used alone as their documentation says.

Each maker gets the same trained network and data, and leaves files: ``pte``, ``onnx``,
``mlpackage``, ``packed``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn
from torch.export import ExportedProgram

import compress.steps  # noqa: F401 - registers them
from benchmarks import onnx_static
from compress import capture, recipe
from compress.errors import CompressError, ConfigError
from compress.journal import Run
from compress.quality import Forward, flat_outputs
from compress.task import Task
from compress.training import Training, fit
from deploy.config import load as load_pipeline
from deploy.export import coreml, executorch, onnx
from deploy.export.options import CoreMLTarget, ExecuTorchTarget, OnnxTarget
from deploy.files import write_bytes
from deploy.types import Format

STEM = "model"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@dataclass
class Made:
    """What a maker leaves: files by kind, figures that only it knows, and what it has to say.

    ``simulated`` computes with just the weights of a file that no runtime opens on this machine;
    its accuracy stands for the file's, and is named so.
    """

    files: dict[str, Path] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    simulated: Forward | None = None


@dataclass(frozen=True)
class Job:
    """What a maker gets: the task with its trained network, its arguments, where files belong."""

    task: Task
    arguments: Mapping[str, Any]
    seed: int
    folder: Path
    journal: Path
    say: Callable[[str], None]


Maker = Callable[[Job], Made]


def float_model(job: Job) -> nn.Module:
    """The maker's own copy of the trained network."""
    if not isinstance(job.task.model, nn.Module):
        raise ConfigError("is an exported program, not an nn.Module", where="task.model")
    return copy.deepcopy(job.task.model).eval()


def exported(job: Job, program: ExportedProgram, kinds: list[str]) -> dict[str, Path]:
    """Write ``program`` in the formats that are asked for, by pocketship's own exporters."""
    files = {}
    for kind in kinds:
        job.say(f"exporting {kind}")
        if kind == "pte":
            options = ExecuTorchTarget(format=Format.EXECUTORCH)
            files[kind] = executorch.export(program, options, job.folder, STEM)[0].path
        elif kind == "onnx":
            plain = OnnxTarget(format=Format.ONNX, ort=False)
            files[kind] = onnx.export(program, plain, job.folder, STEM)[0].path
        elif kind == "mlpackage":
            target = CoreMLTarget(format=Format.COREML)
            files[kind] = coreml.export(program, target, job.folder, STEM)[0].path
        else:
            raise ConfigError(f"no file kind '{kind}'", where="arguments.files")
    return files


def counted(program: ExportedProgram) -> dict[str, float]:
    """Parameters and weight bytes of a program."""
    return {
        "parameters": capture.count_parameters(program),
        "weight_bytes": capture.weight_bytes(program),
    }


# --- Ours ----------------------------------------------------------------------------------------


def steps_of(arguments: Mapping[str, Any]) -> list[Any]:
    """The recipe: ``steps`` as in a pipeline file, or those of an example's (``pipeline``)."""
    if "pipeline" in arguments:
        config = load_pipeline(EXAMPLES / arguments["pipeline"])
        return list(config.recipe.steps) if config.recipe else []
    try:
        return TypeAdapter(list[recipe.step_union()]).validate_python(  # type: ignore[misc]
            arguments.get("steps", [])
        )
    except ValidationError as error:
        raise ConfigError(str(error), where="arguments.steps") from error


def pocketship(job: Job) -> Made:
    """A recipe (:func:`steps_of`); ``files`` to leave, ``coder`` of a packed file."""
    steps = steps_of(job.arguments)
    made = recipe.apply(job.task, steps, seed=job.seed, progress=job.say, journal=job.journal)
    program = made.program
    left = Made(figures=counted(program))
    for row in made.ledger[1:]:
        left.notes.append(f"{row.step}: {row.seconds:.0f} s; {'; '.join(row.notes)}")
    kinds = list(job.arguments.get("files", ["pte"]))
    if "packed" in kinds:
        kinds.remove("packed")
        left.files["packed"] = packed(job, program)
    left.files.update(exported(job, program, kinds))
    if kinds == ["mlpackage"]:
        left.simulated = capture.forward_of(program)
    return left


def packed(job: Job, program: ExportedProgram) -> Path:
    """Pack the program's weights, then put what the file unpacks to in their place.

    So whatever is exported from ``program`` afterwards has only what the packed file holds.
    """
    from compress import entropy

    held = {**program.state_dict, **program.constants}
    weights = {name: t.detach() for name, t in held.items() if isinstance(t, torch.Tensor)}
    path = job.folder / f"{STEM}.psk"
    write_bytes(path, entropy.pack(weights, coder=job.arguments.get("coder", "auto")))
    unpacked = entropy.unpack(path.read_bytes())
    if list(unpacked) != list(weights):
        raise CompressError("the packed file holds other tensors than were put in", where=path.name)
    with torch.no_grad():
        for name, tensor in unpacked.items():
            weights[name].zero_()
            weights[name].copy_(tensor)
    return path


# --- Single libraries ----------------------------------------------------------------------------


def torchao_static(job: Job) -> Made:
    """torchao's PT2E with ExecuTorch's stock XNNPACKQuantizer, static int8 per channel."""
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as stock
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    graph = capture.capture(float_model(job), job.task.example_inputs).module(check_guards=False)
    quantizer = stock.XNNPACKQuantizer()
    quantizer.set_global(stock.get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(graph, quantizer)
    with torch.no_grad():
        for inputs in job.task.calibration:
            prepared(*inputs)
    program = capture.capture(convert_pt2e(prepared), job.task.example_inputs)
    return Made(exported(job, program, ["pte"]), counted(program))


def torch_pruning(job: Job) -> Made:
    """torch-pruning's MagnitudePruner: ``share`` of all channels in one step, then fine-tuning.

    ``keep_layers`` are left as they are (the classifier). Fine-tuning is a plain training of
    ``epochs`` on the true labels, with the learning rate ``learning_rate``.
    """
    import torch_pruning as tp

    model = float_model(job)
    share, epochs = float(job.arguments["share"]), int(job.arguments["epochs"])
    kept = [model.get_submodule(name) for name in job.arguments["keep_layers"]]
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    pruner = tp.pruner.MagnitudePruner(
        model,
        job.task.example_inputs[0],
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=share,
        ignored_layers=kept,
    )
    pruner.step()
    training = Training(epochs=epochs, learning_rate=float(job.arguments["learning_rate"]))
    run = Run(job.seed, job.say, job.journal, place="torch-pruning alone")
    history = fit(model, job.task, training, run, purpose="fine-tuning")
    program = capture.capture(model.eval(), job.task.example_inputs)
    return Made(exported(job, program, ["pte"]), counted(program), [history.words()])


def onnxruntime_static(job: Job) -> Made:
    """onnxruntime.quantization.quantize_static: QDQ, u8 activations, s8 weights per channel."""
    program = capture.capture(float_model(job), job.task.example_inputs)
    source = exported(job, program, ["onnx"])["onnx"]
    path = source.with_name(f"{STEM}.ort-static.onnx")
    names = onnx_static.session(source).get_inputs()
    feeds = [
        {value.name: tensor.numpy() for value, tensor in zip(names, inputs, strict=True)}
        for inputs in job.task.calibration
    ]
    onnx_static.quantize_statically(source, path, feeds)
    return Made({"onnx": path})


def coremltools_palettes(job: Job) -> Made:
    """coremltools.optimize.coreml: k-means palettes of ``bits`` for every weight.

    Core ML predicts on Apple's systems only; the look-up tables are read back from the file and
    the float network computes with the weights that they give.
    """
    import coremltools as ct
    from coremltools.optimize import coreml as optimize

    model = float_model(job)
    program = capture.capture(model, job.task.example_inputs)
    source = exported(job, program, ["mlpackage"])["mlpackage"]
    config = optimize.OpPalettizerConfig(mode="kmeans", nbits=int(job.arguments["bits"]))
    small = optimize.palettize_weights(
        ct.models.MLModel(str(source), skip_model_load=True),
        optimize.OptimizationConfig(global_config=config),
    )
    path = job.folder / f"{STEM}.palettes.mlpackage"
    small.save(str(path))
    replaced = load_palettes(path, model)
    return Made(
        {"mlpackage": path},
        notes=[f"{replaced} weights as palettes"],
        simulated=lambda inputs: flat_outputs(model(*inputs)),
    )


def load_palettes(path: Path, model: nn.Module) -> int:
    """Put the decoded look-up tables of a Core ML program in place of a model's weights.

    A table belongs to the weight of the same shape that it is nearest to: the program has no names
    of the model. Raises ``CompressError`` where that is not one to one. Returns how many.
    """
    tables = [torch.from_numpy(array.copy()).float() for array in palettes(path)]
    free = {n: p for n, p in model.named_parameters() if p.ndim > 1}
    for table in tables:
        alike = {n: p for n, p in free.items() if p.numel() == table.numel()}
        if not alike:
            raise CompressError("a look-up table fits no weight of the model", where=path.name)
        distance = {n: float((p.detach().reshape(-1) - table.reshape(-1)).square().sum())
                    for n, p in alike.items()}  # fmt: skip
        name = min(distance, key=lambda n: distance[n])
        weight = free.pop(name)
        if distance[name] > 0.5 * float(weight.detach().square().sum()):
            raise CompressError(f"no look-up table is near to the weight '{name}'", where=path.name)
        with torch.no_grad():
            weight.copy_(table.reshape(weight.shape))
    return len(tables)


def palettes(path: Path) -> Iterator[Any]:
    """Every weight of an ML Program that is stored as look-up table and indices, decoded."""
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto.load import load

    model = ct.models.MLModel(str(path), skip_model_load=True)
    spec = model.get_spec()
    program = load(spec, spec.specificationVersion, file_weights_dir=model.weights_dir)
    for operation in program.functions["main"].operations:
        if operation.op_type == "constexpr_lut_to_dense":
            yield operation.materialized_val_inference()


MAKERS: dict[str, Maker] = {
    "pocketship": pocketship,
    "torchao": torchao_static,
    "torch-pruning": torch_pruning,
    "onnxruntime": onnxruntime_static,
    "coremltools": coremltools_palettes,
}
