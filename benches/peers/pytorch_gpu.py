"""PyTorch's side of benches/gpu.py: the same model and update, on the same card.

    PYTHON benches/peers/pytorch_gpu.py large 16384 eager|compiled [SECONDS]

bf16 by autocast, fused AdamW, the loss read at each step as modgrad's is. With 0 seconds it
tries itself, on the processor where there is no card.
"""

import json
import statistics
import sys
import time

import torch
from pytorch_ffn import BETAS, LEARNING_RATE, SIZES, WEIGHT_DECAY, build_model

MOST_WARM_UP_STEPS = 10


def main() -> int:
    size, positions, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    seconds = float(sys.argv[4]) if len(sys.argv) > 4 else 10.0
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and seconds > 0.0:
        print(f"error: torch {torch.__version__} finds no card", file=sys.stderr)
        return 1
    warm_up = MOST_WARM_UP_STEPS if seconds > 0.0 else 1
    torch.set_float32_matmul_precision("high")
    model = build_model(torch, SIZES[size]).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )
    forward = torch.compile(model) if mode == "compiled" else model
    batches = [torch.randint(0, 256, (2, positions)) for _ in range(8)]
    durations = []
    start = time.perf_counter()
    while len(durations) < 2 * warm_up or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        data, targets = batches[len(durations) % len(batches)].to(device, non_blocking=True)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16):
            loss = forward(data, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
        durations.append(time.perf_counter() - before)
    median = statistics.median(durations[warm_up:])
    result = {"milliseconds": median * 1e3, "positions_per_second": positions / median}
    where = torch.cuda.get_device_name() if device == "cuda" else "the processor"
    print(json.dumps(result | {"torch": f"torch {torch.__version__} on {where}"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
