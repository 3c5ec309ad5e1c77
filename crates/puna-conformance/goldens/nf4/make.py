"""What bitsandbytes makes of values, and of these codes again: NF4 in blocks of 64, absmax in f32.

usage: python make.py OUT
needs: torch 2.15, bitsandbytes 0.50, safetensors
"""
import sys, numpy as np, torch, bitsandbytes as bnb
from bitsandbytes import functional as F
from safetensors.torch import save_file
torch.manual_seed(0)
x = torch.randn(24, 64)
x[1] *= 1e-3; x[2] *= 1e3; x[3] = 0; x[4, 1:] = 0
levels = F.get_4bit_type("nf4", device="cpu")
levels = levels[0] if isinstance(levels, tuple) else levels
x[5, :16] = levels; x[5, 16:] = 0.5
x[6, :15] = (levels[1:] + levels[:-1]) / 2; x[6, 15:] = 1.0   # ties
x[7] = torch.nextafter(x[6], torch.tensor(2.0)); x[7, 15:] = 1.0
x[8] = -x[6]
q, state = F.quantize_4bit(x, quant_type="nf4", blocksize=64)
values = F.dequantize_4bit(q, state)
def blocks(q, absmax):
    q = q.reshape(-1, 32); a = absmax.float().numpy().view(np.uint8).reshape(-1, 4)
    return torch.from_numpy(np.concatenate([a, q.numpy()], 1).reshape(-1).copy())
bytes_ = blocks(q, state.absmax)
# Every code, twice over, beside any magnitude.
codes = torch.randint(0, 256, (40, 32), dtype=torch.uint8)
absmax = torch.rand(40) * 10 ** torch.linspace(-30, 30, 40)
state2 = F.QuantState(absmax=absmax, shape=torch.Size([40, 64]), code=state.code, blocksize=64, quant_type="nf4", dtype=torch.float32)
values2 = F.dequantize_4bit(codes.reshape(-1, 1), state2)
save_file({"NF4.bytes": blocks(codes, absmax), "NF4.values": values2.reshape(-1).contiguous(), "NF4.encode.input": x.reshape(-1).contiguous(),
  "NF4.encode.bytes": bytes_, "NF4.encode.values": values.reshape(-1).contiguous()}, sys.argv[1])
print(bnb.__version__, torch.__version__)
