// Where sequences begin: those of queries, and behind them those of keys, in one buffer.
fn q_starts_at(i: u32) -> u32 { return starts_at(i); }
fn k_starts_at(i: u32) -> u32 { return starts_at(p.sequences + 1u + i); }
