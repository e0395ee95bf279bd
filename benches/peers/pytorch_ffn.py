#!/usr/bin/env python3
"""PyTorch's training throughput on the FFN cerebellum, for comparison with modgrad's.

A stand-alone peer: it needs torch and numpy, and knows nothing of modgrad. It trains the same byte model
with the same update, in every way of running it on a CPU that PyTorch offers, so that modgrad can be held
against PyTorch's *best* mode and not against its default. Weights and optimiser state are f32 in all modes.

Results are JSON objects, one a line, on stdout; everything else goes to stderr.

Axes: N positions in a step, D model width, H hidden width; in products [M, K] times [K, N].
"""

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import sys
import time

VOCABULARY = 256
MAXIMUM_GRADIENT_NORM = 1.0
LEARNING_RATE, BETAS, WEIGHT_DECAY = 1e-3, (0.9, 0.95), 0.1
MINIMUM_STEPS = 36
WARM_UP_STEPS = 5
DISTINCT_BATCHES = 8
QUIET_CPUS = 0.1  # a measurement counts as undisturbed when other processes use less than this

# glibc gives freed activations back to the kernel and faults them in again at every step; these settings keep
# them, and let torch ask for huge pages. They must be in the environment before the process starts.
ALLOCATOR_ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",  # MALLOC_MMAP_THRESHOLD_ would not do: glibc refuses more than 32 MiB
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(64 << 20),
    "THP_MEM_ALLOC_ENABLE": "1",
}


@dataclasses.dataclass(frozen=True)
class Size:
    width: int
    hidden: int
    layers: int


SIZES = {
    "small": Size(128, 512, 4),
    "medium": Size(384, 1536, 8),
    "large": Size(1024, 5120, 12),
}

# How numbers are multiplied: (autocast to bf16, torch.set_float32_matmul_precision).
PRECISIONS = {
    "f32": (False, "highest"),
    "f32-high": (False, "high"),  # TF32 where the CPU has it
    "f32-medium": (False, "medium"),  # f32 tensors, bf16 inside matrix products
    "bf16": (True, "highest"),
}

# How the step is executed: what is passed to torch.compile (None: nothing is compiled), and whether clipping and
# AdamW are compiled as well.
EXECUTIONS = {
    "eager": (None, False),
    "compile": ({"mode": "default"}, False),
    "compile-autotune": ({"mode": "max-autotune-no-cudagraphs"}, False),
    "compile-cpp": ({"options": {"cpp_wrapper": True}}, False),
    "compile-update": ({"mode": "default"}, True),
}

# The update where it is not compiled: (AdamW's keyword, clip_grad_norm_'s foreach). None: the norm from dot products,
# and the scaling left to the fused AdamW through `grad_scale`, as torch.amp.GradScaler does it.
UPDATES = {
    "fused": ({"fused": True}, True),
    "fused-folded": ({"fused": True}, None),
    "foreach": ({"foreach": True}, True),
    "plain": ({"foreach": False}, False),
}

MODES = {f"{p}-{e}": (p, e) for p in PRECISIONS for e in EXECUTIONS}
DEFAULT_MODES = [
    "f32-eager",
    "f32-medium-eager",
    "bf16-eager",
    "f32-compile",
    "f32-compile-cpp",
    "f32-medium-compile",
    "f32-medium-compile-cpp",
    "bf16-compile",
    "bf16-compile-cpp",
]

# (M, K, N) of the products of the small and medium models, for --linear.
LINEAR_SHAPES = [
    (m, k, n) for m in (64, 2048) for k, n in ((384, 3072), (1536, 384), (128, 1024), (512, 128))
]


def parse_arguments():
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Measure how many positions a second PyTorch trains of the FFN cerebellum on this CPU.\n\n"
        "One step is forward, backward, clipping to global norm 1 and AdamW over N random bytes.\n"
        "Each line on stdout is one JSON object; logs are on stderr.",
        epilog="sizes (width/hidden/layers):\n"
        + "".join(f"  {n:8} {s.width}/{s.hidden}/{s.layers}\n" for n, s in SIZES.items())
        + "\nmodes are PRECISION-EXECUTION:\n"
        "  f32               IEEE f32 products\n"
        "  f32-high          set_float32_matmul_precision('high')\n"
        "  f32-medium        set_float32_matmul_precision('medium'): bf16 inside the products\n"
        "  bf16              autocast to bf16, f32 weights\n"
        "  eager             no compilation\n"
        "  compile           torch.compile of forward and backward (needs a C++ compiler)\n"
        "  compile-autotune  the same with mode max-autotune-no-cudagraphs\n"
        "  compile-cpp       the same with the C++ wrapper in place of the Python one\n"
        "  compile-update    clipping and AdamW compiled as well\n"
        f"\ndefault modes: {', '.join(DEFAULT_MODES)}\n"
        "\nexamples:\n"
        "  pytorch_ffn.py --best                         PyTorch's best figure for each size and batch\n"
        "  pytorch_ffn.py --sizes medium --positions 64 --modes all\n"
        "  pytorch_ffn.py --sizes medium --positions 2048 --modes bf16-compile --profile\n"
        "  pytorch_ffn.py --linear                       GFLOP/s of F.linear alone\n",
    )
    parser.add_argument(
        "--sizes", default="small,medium", help="comma-separated, or 'all' (default: %(default)s)"
    )
    parser.add_argument(
        "--positions", default="64,2048", help="batch sizes N (default: %(default)s)"
    )
    parser.add_argument("--modes", default="default", help="comma-separated, 'default' or 'all'")
    parser.add_argument(
        "--seconds",
        type=float,
        default=3.0,
        help="least time of a measurement (default: %(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=MINIMUM_STEPS,
        help="least number of steps of a measurement (default: %(default)s)",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=1,
        help="measurements of each mode; the fastest counts (default: %(default)s)",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=0.0,
        help="seconds a mode may wait for other processes, and be measured again (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    parser.add_argument(
        "--update",
        choices=["auto", *UPDATES],
        default="auto",
        help="the form of AdamW and clipping in modes that do not compile it; auto times all and takes the fastest",
    )
    parser.add_argument(
        "--allocator",
        choices=["tuned", "plain"],
        default="tuned",
        help="tuned: keep freed memory and use huge pages; plain: glibc as it is (default: %(default)s)",
    )
    parser.add_argument(
        "--best", action="store_true", help="print only the fastest mode of each (size, positions)"
    )
    parser.add_argument(
        "--profile", action="store_true", help="also print where the time of a step goes, on stderr"
    )
    parser.add_argument("--linear", action="store_true", help="measure F.linear alone and stop")
    arguments = parser.parse_args()

    def chosen(option, text, known, default):
        names = list(known) if text == "all" else default if text == "default" else text.split(",")
        for name in names:
            if name not in known:
                parser.error(f"{option}: unknown `{name}`; known are {', '.join(known)}")
        return names

    arguments.sizes = chosen("--sizes", arguments.sizes, SIZES, ["small", "medium"])
    arguments.modes = chosen("--modes", arguments.modes, MODES, DEFAULT_MODES)
    try:
        arguments.positions = [int(n) for n in arguments.positions.split(",")]
    except ValueError:
        parser.error(
            f"--positions: `{arguments.positions}` is not a comma-separated list of numbers"
        )
    for option in ("threads", "steps", "repeats"):
        if getattr(arguments, option) < 1:
            parser.error(f"--{option}: must be at least 1")
    if min(arguments.positions) < 1:
        parser.error("--positions: must be at least 1")
    return arguments


def log(text):
    print(text, file=sys.stderr, flush=True)


def main():
    arguments = parse_arguments()
    prepare_environment(arguments)
    import torch

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    log(
        f"torch {torch.__version__}, capability {torch.backends.cpu.get_cpu_capability()}, "
        f"mkldnn {'on' if torch.backends.mkldnn.is_available() else 'off'}, "
        f"mkldnn bf16 {'on' if mkldnn_bf16(torch) else 'off'}, "
        f"AMX {'on' if torch.cpu._is_amx_tile_supported() else 'off'}, "
        f"{torch.get_num_threads()} threads, allocator {arguments.allocator}, load {os.getloadavg()[0]:.2f}"
    )
    if arguments.linear:
        for row in measure_linear(torch, arguments):
            print(json.dumps(row), flush=True)
        return 0

    failed = 0
    for size in arguments.sizes:
        update = (
            fastest_update(torch, SIZES[size]) if arguments.update == "auto" else arguments.update
        )
        for positions in arguments.positions:
            rows = []
            for mode in arguments.modes:
                try:
                    row = measure(torch, size, positions, mode, update, arguments)
                # a mode that this machine cannot run must not hide the others
                except Exception as error:
                    first_line = (str(error).strip().splitlines() or [""])[0]
                    log(
                        f"{size:7} {positions:5} {mode:24} skipped: {type(error).__name__}: {first_line[:200]}"
                    )
                    continue
                rows.append(row)
                if not arguments.best:
                    print(json.dumps(row), flush=True)
            failed += not rows
            if arguments.best and rows:
                print(json.dumps(max(rows, key=lambda r: r["positions_per_second"])), flush=True)
    return 1 if failed else 0


def prepare_environment(arguments):
    """Thread counts and the allocator are read when the process starts: start it again if they differ."""
    wanted = {"OMP_NUM_THREADS": str(arguments.threads), "CUDA_VISIBLE_DEVICES": ""}
    if arguments.allocator == "tuned":
        wanted |= ALLOCATOR_ENVIRONMENT
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)


def mkldnn_bf16(torch):
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def build_model(torch, size):
    nn, functional = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.RMSNorm(size.width, eps=1e-6)
            self.up = nn.Linear(size.width, 2 * size.hidden, bias=False)
            self.down = nn.Linear(size.hidden, size.width, bias=False)

        def forward(self, x):  # [N, D]
            gate, value = self.up(self.norm(x)).chunk(2, dim=-1)  # [N, H] each
            return x + self.down(functional.silu(gate) * value)

    class Cerebellum(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(VOCABULARY, size.width)
            self.blocks = nn.ModuleList(Block() for _ in range(size.layers))
            self.norm = nn.RMSNorm(size.width, eps=1e-6)
            self.head = nn.Linear(size.width, VOCABULARY, bias=False)

        def forward(self, data, targets):  # [N] bytes each
            x = self.embedding(data)
            for block in self.blocks:
                x = block(x)
            return functional.cross_entropy(self.head(self.norm(x)).float(), targets)

    torch.manual_seed(0)
    return Cerebellum()


class Trainer:
    """One model, one optimiser, one way of running a step."""

    def __init__(self, torch, size, precision, execution, update):
        self.torch = torch
        self.autocast, matmul_precision = PRECISIONS[precision]
        compile_arguments, compile_update = EXECUTIONS[execution]
        torch.set_float32_matmul_precision(matmul_precision)
        self.model = build_model(torch, size)
        optimizer_arguments, self.foreach_clip = UPDATES["plain" if compile_update else update]
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            # a tensor, so that a compiled update does not treat it as a constant
            lr=torch.tensor(LEARNING_RATE) if compile_update else LEARNING_RATE,
            betas=BETAS,
            weight_decay=WEIGHT_DECAY,
            **optimizer_arguments,
        )
        self.run_model, self.run_update = self.model, self.update
        if compile_arguments is not None:
            torch._dynamo.reset()
            self.run_model = torch.compile(
                self.model, dynamic=False, fullgraph=True, **compile_arguments
            )
        if compile_update:
            self.run_update = torch.compile(self.update, dynamic=False)

    def gradients(self, data, targets):
        context = (
            self.torch.autocast("cpu", self.torch.bfloat16)
            if self.autocast
            else contextlib.nullcontext()
        )
        with context:
            loss = self.run_model(data, targets)
        loss.backward()
        return loss

    def update(self):
        if self.foreach_clip is None:
            flat = [p.grad.view(-1) for p in self.model.parameters()]
            norm = self.torch.stack([self.torch.dot(g, g) for g in flat]).sum().sqrt()
            # AdamW divides by grad_scale; clip_grad_norm_ multiplies by min(1, maximum / (norm + 1e-6))
            self.optimizer.grad_scale = ((norm + 1e-6) / MAXIMUM_GRADIENT_NORM).clamp_(min=1.0)
            self.optimizer.found_inf = None
            self.optimizer.step()
            return
        self.torch.nn.utils.clip_grad_norm_(
            self.model.parameters(), MAXIMUM_GRADIENT_NORM, foreach=self.foreach_clip
        )
        self.optimizer.step()

    def step(self, data, targets):
        loss = self.gradients(data, targets)
        self.run_update()
        self.optimizer.zero_grad(set_to_none=True)
        return loss


def random_batches(torch, positions):
    generator = torch.Generator().manual_seed(1)
    pairs = torch.randint(0, VOCABULARY, (DISTINCT_BATCHES, 2, positions), generator=generator)
    return [(pair[0].contiguous(), pair[1].contiguous()) for pair in pairs]


def fastest_update(torch, size):
    """Clipping and AdamW alone, a third of a second for each form."""
    fastest = {}
    for update in UPDATES:
        trainer = Trainer(torch, size, "f32", "eager", update)
        trainer.gradients(*random_batches(torch, 64)[0])
        fastest[update] = min(timed(trainer.update, 0.33, 10, warm_up=3)) * 1e3
    best = min(fastest, key=fastest.get)
    log(
        "update, ms: " + ", ".join(f"{u} {ms:.2f}" for u, ms in fastest.items()) + f"; using {best}"
    )
    return best


def timed(function, seconds, steps, warm_up):
    """Seconds of each call: at least `steps` calls and at least `seconds` in all."""
    for _ in range(warm_up):
        function()
    durations, begin = [], time.perf_counter()
    while len(durations) < steps or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        function()
        durations.append(time.perf_counter() - start)
    return durations


def undisturbed(run, repeats, patience):
    """The durations of the run with the least median, and the CPUs that other processes used meanwhile."""
    deadline = time.monotonic() + patience
    runs = []
    while len(runs) < repeats or (
        min(runs, key=lambda r: r[1])[1] > QUIET_CPUS and time.monotonic() < deadline
    ):
        while (
            time.monotonic() < deadline
            and other_cpus_during(lambda: time.sleep(0.5))[1] > QUIET_CPUS
        ):
            pass
        runs.append(other_cpus_during(run))
    return min(runs, key=lambda r: statistics.median(r[0]))


def other_cpus_during(function):
    """The function's result, and how many CPUs other processes kept busy (0 where /proc/stat is absent)."""

    def machine_busy():
        try:
            with open("/proc/stat", encoding="ascii") as file:
                user, nice, system, _, _, irq, soft_irq = map(int, file.readline().split()[1:8])
        except OSError:
            return time.process_time()
        return (user + nice + system + irq + soft_irq) / os.sysconf("SC_CLK_TCK")

    start, busy, own = time.perf_counter(), machine_busy(), time.process_time()
    result = function()
    others = (machine_busy() - busy) - (time.process_time() - own)
    return result, max(0.0, others / (time.perf_counter() - start))


def measure(torch, size, positions, mode, update, arguments):
    precision, execution = MODES[mode]
    start = time.perf_counter()
    trainer = Trainer(torch, SIZES[size], precision, execution, update)
    batches = random_batches(torch, positions)
    losses, count = [], 0

    def step():
        nonlocal count
        losses[:] = [trainer.step(*batches[count % DISTINCT_BATCHES])]
        count += 1

    step()  # compiles
    first_step = time.perf_counter() - start
    durations, other_cpus = undisturbed(
        lambda: timed(step, arguments.seconds, arguments.steps, WARM_UP_STEPS),
        arguments.repeats,
        arguments.patience,
    )
    loss = losses[0].item()
    if loss != loss:
        raise ArithmeticError(f"the loss is not a number after {count} steps")

    median = statistics.median(durations)
    parameters = sum(p.numel() for p in trainer.model.parameters())
    matrices = sum(
        p.numel()
        for n, p in trainer.model.named_parameters()
        if p.dim() == 2 and "embedding" not in n
    )
    gflops = 6 * matrices * positions / median / 1e9  # forward, and two products backward
    log(
        f"{size:7} {positions:5} {mode:24} {median * 1e3:9.3f} ms/step (fastest {min(durations) * 1e3:.3f}) "
        f"{positions / median:10.0f} positions/s {gflops:7.1f} GFLOP/s, first step {first_step:.1f} s, "
        f"others used {other_cpus:.2f} CPUs"
    )
    if other_cpus > QUIET_CPUS:
        log(
            "    disturbed: torch's threads wait in spin loops, so a step slows down far more than by this share"
        )
    if arguments.profile:
        profile(torch, trainer, batches, f"{size} {positions} {mode}")
    return {
        "system": "pytorch",
        "version": torch.__version__,
        "size": size,
        "positions": positions,
        "mode": mode,
        "milliseconds_per_step": round(median * 1e3, 4),
        "positions_per_second": round(positions / median, 1),
        "parameters": parameters,
        "milliseconds_fastest_step": round(min(durations) * 1e3, 4),
        "gflops": round(gflops, 1),
        "steps": len(durations),
        "other_cpus": round(other_cpus, 3),
        "disturbed": other_cpus > QUIET_CPUS,
        "threads": arguments.threads,
        "update": "compiled" if EXECUTIONS[execution][1] else update,
        "allocator": arguments.allocator,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "mkldnn_bf16": bool(mkldnn_bf16(torch)),
        "loss": round(loss, 4),
    }


def profile(torch, trainer, batches, title, steps=20):
    """Self time of the operators, by phase of the step and by kind of work."""
    record = torch.profiler.record_function
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for index in range(steps):
            data, targets = batches[index % DISTINCT_BATCHES]
            with record("phase: forward and backward"):
                trainer.gradients(data, targets)
            with record("phase: clipping and AdamW"):
                trainer.run_update()
            with record("phase: freeing gradients"):
                trainer.optimizer.zero_grad(set_to_none=True)
    events = profiler.key_averages()
    phases = [e for e in events if e.key.startswith("phase: ")]
    total = sum(e.cpu_time_total for e in phases)
    kinds = {}
    for event in events:
        kind = kind_of(event.key)
        kinds[kind] = kinds.get(kind, 0.0) + event.self_cpu_time_total
    log(f"profile of {title}: {total / steps / 1e3:.2f} ms/step under the profiler")
    for event in phases:
        kinds[event.key] = event.cpu_time_total
    for kind, microseconds in sorted(kinds.items(), key=lambda item: -item[1]):
        log(f"  {kind:40} {microseconds / steps / 1e3:8.2f} ms {100 * microseconds / total:5.1f} %")
    log("  longest operators:")
    for event in sorted(events, key=lambda e: -e.self_cpu_time_total)[:16]:
        milliseconds = event.self_cpu_time_total / steps / 1e3
        log(f"    {event.key[:60]:60} {milliseconds:8.2f} ms, {event.count / steps:.0f} calls")


def kind_of(operator):
    if (
        operator in ("aten::mm", "aten::addmm", "aten::bmm")
        or "mkldnn" in operator
        or "linear" in operator.lower()
    ):
        return "matrix products"
    if "_fused_adamw" in operator or operator.startswith("Optimizer.step"):
        return "AdamW"
    if operator in (
        "aten::dot",
        "aten::linalg_vector_norm",
        "aten::_foreach_norm",
        "aten::_foreach_mul_",
    ):
        return "clipping"
    if "CompiledFxGraph" in operator or "CompiledFunction" in operator or "cpp_fused" in operator:
        return "compiled pointwise and reductions"
    if operator in ("aten::_to_copy", "aten::copy_"):
        return "copies and casts"
    return "other (eager pointwise, Python, autograd)"


def measure_linear(torch, arguments):
    """F.linear alone: x [M, K] times weight [N, K] transposed."""
    linear = torch.nn.functional.linear
    for name in ("bf16", "f32", "f32-medium"):
        in_bf16, matmul_precision = PRECISIONS[name]
        dtype = torch.bfloat16 if in_bf16 else torch.float32
        torch.set_float32_matmul_precision(matmul_precision)
        for m, k, n in LINEAR_SHAPES:
            x, weight = torch.randn(m, k, dtype=dtype), torch.randn(n, k, dtype=dtype)
            with torch.inference_mode():
                runs = [
                    timed(lambda: linear(x, weight), 0.3, 100, 20) for _ in range(arguments.repeats)
                ]
            median = min(statistics.median(run) for run in runs)
            gflops = 2 * m * k * n / median / 1e9
            log(
                f"linear {name:10} M {m:5} K {k:5} N {n:5} {median * 1e6:9.1f} us {gflops:8.1f} GFLOP/s"
            )
            yield {
                "system": "pytorch",
                "version": torch.__version__,
                "kind": "linear",
                "precision": name,
                "m": m,
                "k": k,
                "n": n,
                "microseconds": round(median * 1e6, 2),
                "gflops": round(gflops, 1),
            }


if __name__ == "__main__":
    sys.exit(main())
