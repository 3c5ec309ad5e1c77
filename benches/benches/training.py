"""A training step of PyTorch, eager, for each line that comes in; its seconds, and the peak memory in bytes, go out.

usage: python training.py THREADS ROWS LENGTH
"""
import resource
import sys
import time

import torch
import torch.nn.functional as F

threads, rows, length = (int(argument) for argument in sys.argv[1:])
torch.manual_seed(0)
torch.set_num_threads(threads)
HIDDEN, MLP, LAYERS, HEADS, KV, DIM, VOCAB = 576, 1536, 30, 9, 3, 64, 49152


def linear(inputs, outputs):
    return torch.nn.Linear(inputs, outputs, bias=False)


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.o = linear(HIDDEN, HEADS * DIM), linear(HEADS * DIM, HIDDEN)
        self.k, self.v = linear(HIDDEN, KV * DIM), linear(HIDDEN, KV * DIM)
        self.gate, self.up, self.down = linear(HIDDEN, MLP), linear(HIDDEN, MLP), linear(MLP, HIDDEN)
        self.first = torch.nn.Parameter(torch.ones(HIDDEN))
        self.second = torch.nn.Parameter(torch.ones(HIDDEN))

    def forward(self, x, cos, sin):
        h = F.rms_norm(x, (HIDDEN,), self.first, 1e-5)
        heads = lambda y, count: y.view(*x.shape[:2], count, DIM).transpose(1, 2)
        turn = lambda y: y * cos + torch.cat((-y[..., DIM // 2 :], y[..., : DIM // 2]), -1) * sin
        q, k, v = turn(heads(self.q(h), HEADS)), turn(heads(self.k(h), KV)), heads(self.v(h), KV)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(y.transpose(1, 2).reshape(*x.shape[:2], HEADS * DIM))
        h = F.rms_norm(x, (HIDDEN,), self.second, 1e-5)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(VOCAB, HIDDEN)
        torch.nn.init.normal_(self.embedding.weight, std=0.02)
        self.layers = torch.nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = torch.nn.Parameter(torch.ones(HIDDEN))
        angles = torch.outer(torch.arange(length).float(), 1e5 ** (-torch.arange(0, DIM, 2) / DIM))
        angles = torch.cat((angles, angles), -1)
        self.cos, self.sin = angles.cos(), angles.sin()

    def forward(self, ids, labels):
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        x = F.rms_norm(x, (HIDDEN,), self.norm, 1e-5)
        return F.cross_entropy((x @ self.embedding.weight.t()).view(-1, VOCAB), labels.view(-1))


model = Llama()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
ids = torch.randint(0, VOCAB, (rows, length))
labels = torch.randint(0, VOCAB, (rows, length))
for _ in sys.stdin:
    begin = time.perf_counter()
    model(ids, labels).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    seconds = time.perf_counter() - begin
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)
