"""PyTorch's side of benches/gpu.py: the same model and update, on the same card.

    PYTHON benches/peers/pytorch_gpu.py large 16384 eager|compiled

bf16 by autocast, fused AdamW, the loss read at each step as modgrad's is.
"""

import json
import statistics
import sys
import time

import torch
from pytorch_ffn import BETAS, LEARNING_RATE, SIZES, WEIGHT_DECAY, build_model

WARM_UP_STEPS = 10
SECONDS = 10.0


def main() -> None:
    size, positions, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    torch.set_float32_matmul_precision("high")
    model = build_model(torch, SIZES[size]).cuda()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )
    forward = torch.compile(model) if mode == "compiled" else model
    batches = [torch.randint(0, 256, (2, positions)) for _ in range(8)]
    durations = []
    start = time.perf_counter()
    while len(durations) < 2 * WARM_UP_STEPS or time.perf_counter() - start < SECONDS:
        before = time.perf_counter()
        data, targets = batches[len(durations) % len(batches)].cuda(non_blocking=True)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            loss = forward(data, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
        durations.append(time.perf_counter() - before)
    torch.cuda.synchronize()
    median = statistics.median(durations[WARM_UP_STEPS:])
    result = {"milliseconds": median * 1e3, "positions_per_second": positions / median}
    print(json.dumps(result | {"torch": torch.__version__}))


if __name__ == "__main__":
    main()
