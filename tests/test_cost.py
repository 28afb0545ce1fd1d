"""What selection may cost in memory, measured in a process of its own. (Times belong into the benchmark.)"""

import json
from collections.abc import Callable

PROGRAM = """
import json, torch
from lcmat import Signals
from lcmat.hardware import peak_memory
from methods import select

torch.manual_seed(0)
n, d, C = 5_000, 512, 10
warm = Signals(torch.rand(50, d), torch.rand(50, C), torch.zeros(50, dtype=torch.int64))
select(warm, fraction=0.1)
features, logits = torch.rand(n, d), 3 * torch.randn(n, C)
before = peak_memory()
subset = select(Signals(features, logits, torch.zeros(n, dtype=torch.int64)), fraction=0.02)
after = peak_memory()
print(json.dumps({"picks": len(subset), "MB": (after - before) / 2**20}))
"""


def test_a_class_of_cifar10_stays_under_a_gigabyte(script: Callable) -> None:
    done = script(["-c", PROGRAM])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["picks"] == 100
    # One 5,000 × 5,000 matrix in float64 is 191 MB; the gradients alone would be 5,000 × 5,130 × 8 = 196 MB more.
    assert 0 < found["MB"] < 1000
