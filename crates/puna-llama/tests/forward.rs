//! A naive forward pass in f64 over a checkpoint's own bytes: config, names, joining and rotary settings are right if the
//! reference's logits come out.

use std::path::PathBuf;

use half::{bf16, f16};
use puna_llama::weights::mmap::MappedFile;
use puna_llama::weights::{Checkpoint, TensorInfo, safetensors};
use puna_llama::{Config, rope};
use puna_tensor::DType;
use puna_tensor::op::RopePairs;

fn golden(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../puna-conformance/goldens")).join(path)
}

fn decode(info: &TensorInfo) -> Vec<f64> {
    let bytes = info.bytes().unwrap();
    match info.dtype().unwrap() {
        DType::F32 => bytemuck::pod_collect_to_vec::<_, f32>(&bytes).into_iter().map(f64::from).collect(),
        DType::F16 => bytemuck::pod_collect_to_vec::<_, f16>(&bytes).into_iter().map(f64::from).collect(),
        DType::BF16 => bytemuck::pod_collect_to_vec::<_, bf16>(&bytes).into_iter().map(f64::from).collect(),
        other => panic!("{other} is decoded elsewhere"),
    }
}

struct Naive<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a Config,
}

impl Naive<'_> {
    fn weight(&self, name: &str) -> Vec<f64> {
        decode(self.checkpoint.tensor(name).unwrap_or_else(|| panic!("{name}")))
    }

    /// `x [n] -> [rows]`, with the bias where there is one.
    fn linear(&self, x: &[f64], weight: &[f64], bias: Option<&[f64]>) -> Vec<f64> {
        let dot = |row: &[f64]| row.iter().zip(x).map(|(a, b)| a * b).sum::<f64>();
        let mut y: Vec<f64> = weight.chunks_exact(x.len()).map(dot).collect();
        bias.into_iter().flatten().zip(&mut y).for_each(|(b, y)| *y += b);
        y
    }

    fn rms_norm(&self, x: &[f64], weight: &[f64]) -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (mean + self.config.rms_norm_eps).sqrt();
        x.iter().zip(weight).map(|(x, w)| x * scale * w).collect()
    }

    fn turn(&self, heads: &mut [f64], cos: &[f32], sin: &[f32]) {
        let (dim, half) = (self.config.head_dim, self.config.head_dim / 2);
        for head in heads.chunks_exact_mut(dim) {
            for i in 0..half {
                let (a, b) = match self.config.rope_pairs {
                    RopePairs::Halves => (i, i + half),
                    RopePairs::Interleaved => (2 * i, 2 * i + 1),
                };
                let (c, s) = (f64::from(cos[i]), f64::from(sin[i]));
                (head[a], head[b]) = (head[a] * c - head[b] * s, head[b] * c + head[a] * s);
            }
        }
    }

    /// Logits of every token.
    fn forward(&self, ids: &[usize]) -> Vec<Vec<f64>> {
        let Config { hidden_size, heads, kv_heads, head_dim, layers, .. } = *self.config;
        let half = head_dim / 2;
        let (cos, sin) = rope::frequencies(self.config, ids.len()).table(0..ids.len());
        let embed = self.weight("model.embed_tokens.weight");
        let mut stream: Vec<Vec<f64>> = ids.iter().map(|id| embed[id * hidden_size..][..hidden_size].to_vec()).collect();
        for layer in 0..layers {
            let path = |name: &str| format!("model.layers.{layer}.{name}");
            let weight = |name: &str| self.weight(&path(name));
            let project = |x: &[Vec<f64>], name: &str| -> Vec<Vec<f64>> {
                let matrix = weight(&format!("{name}.weight"));
                let bias = self.checkpoint.tensor(&path(&format!("{name}.bias"))).map(decode);
                x.iter().map(|x| self.linear(x, &matrix, bias.as_deref())).collect()
            };
            let norm = |stream: &[Vec<f64>], name: &str| -> Vec<Vec<f64>> {
                let scale = weight(&format!("{name}.weight"));
                stream.iter().map(|x| self.rms_norm(x, &scale)).collect()
            };
            let x = norm(&stream, "input_layernorm");
            let (mut q, mut k) = (project(&x, "self_attn.q_proj"), project(&x, "self_attn.k_proj"));
            let v = project(&x, "self_attn.v_proj");
            for t in 0..ids.len() {
                let (cos, sin) = (&cos[t * half..][..half], &sin[t * half..][..half]);
                self.turn(&mut q[t], cos, sin);
                self.turn(&mut k[t], cos, sin);
            }
            let mut attended = vec![vec![0.0; heads * head_dim]; ids.len()];
            for t in 0..ids.len() {
                for head in 0..heads {
                    let kv = head / (heads / kv_heads);
                    let part = |x: &[f64], head: usize| x[head * head_dim..][..head_dim].to_vec();
                    let query = part(&q[t], head);
                    let score =
                        |s: usize| query.iter().zip(part(&k[s], kv)).map(|(a, b)| a * b).sum::<f64>() / (head_dim as f64).sqrt();
                    let scores: Vec<f64> = (0..=t).map(score).collect();
                    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
                    let sum: f64 = weights.iter().sum();
                    for (s, weight) in weights.iter().enumerate() {
                        let value = part(&v[s], kv);
                        let into = &mut attended[t][head * head_dim..][..head_dim];
                        into.iter_mut().zip(value).for_each(|(y, v)| *y += weight / sum * v);
                    }
                }
            }
            let add = |stream: &mut [Vec<f64>], y: Vec<Vec<f64>>| {
                stream.iter_mut().zip(y).for_each(|(x, y)| x.iter_mut().zip(y).for_each(|(x, y)| *x += y));
            };
            add(&mut stream, project(&attended, "self_attn.o_proj"));
            let x = norm(&stream, "post_attention_layernorm");
            let (gate, up) = (project(&x, "mlp.gate_proj"), project(&x, "mlp.up_proj"));
            let silu = |x: f64| x / (1.0 + (-x).exp());
            let gated: Vec<Vec<f64>> =
                gate.iter().zip(&up).map(|(g, u)| g.iter().zip(u).map(|(g, u)| silu(*g) * u).collect()).collect();
            add(&mut stream, project(&gated, "mlp.down_proj"));
        }
        let scale = self.weight("model.norm.weight");
        let head = if self.config.tie_word_embeddings { embed } else { self.weight("lm_head.weight") };
        stream.iter().map(|x| self.linear(&self.rms_norm(x, &scale), &head, None)).collect()
    }
}

#[track_caller]
fn check(model: &str) {
    let checkpoint = Checkpoint::open(golden(model)).unwrap();
    let expected = safetensors::parse(&MappedFile::open(&golden(&format!("{model}/expected.safetensors"))).unwrap()).unwrap();
    let find = |name: &str| expected.iter().find(|info| info.name == name);
    for prompt in 0.. {
        let Some(ids) = find(&format!("prompt.{prompt}.ids")) else {
            assert!(prompt > 0);
            break;
        };
        let ids: Vec<usize> =
            bytemuck::pod_collect_to_vec::<_, i64>(&ids.bytes().unwrap()).into_iter().map(|id| id as usize).collect();
        let logits = decode(find(&format!("prompt.{prompt}.logits")).unwrap());
        let made = Naive { checkpoint: &checkpoint, config: checkpoint.config() }.forward(&ids).concat();
        assert_eq!(made.len(), logits.len());
        let off: f64 = made.iter().zip(&logits).map(|(a, b)| (a - b) * (a - b)).sum();
        let norm: f64 = logits.iter().map(|b| b * b).sum();
        let error = (off / norm).sqrt();
        // The reference's cosines are in f32, as are its logits: a second implementation in f64 is within 1.2e-6.
        assert!(error < 2e-6, "{model} prompt {prompt}: relative error {error:e}");
    }
}

#[test]
fn biases_of_attention_and_mlp_are_found() {
    check("models/bias");
}

#[test]
fn dynamic_rope_uses_the_frequencies_of_the_whole_prompt() {
    check("models/rope-dynamic");
}

#[test]
fn yarn_uses_the_factor_that_is_written() {
    check("models/rope-yarn");
}

#[test]
fn shards_are_one_model() {
    check("models/sharded-bf16");
}

#[test]
fn model_parallel_files_are_joined_along_the_right_axes() {
    check("models/meta-pth-mp2");
}

#[test]
fn tied_embeddings_and_scaled_rope_are_read() {
    check("models/llama3.2-tied");
}

/// A checkpoint of random weights in a folder of its own.
fn random_checkpoint(config: &str, seed: u32) -> (tempfile::TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let parsed = Config::from_hf_json("config.json", config.as_bytes()).unwrap();
    let mut state = seed;
    let mut uniform = move || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = parsed
        .tensors()
        .into_iter()
        .map(|(name, shape)| {
            let columns = *shape.last().unwrap();
            let (middle, spread) = match &name {
                name if name.contains("norm") => (1.0, 0.5),
                name if name.contains("embed") || name.ends_with("bias") => (0.0, 1.5),
                _ => (0.0, 2.0 / (columns as f32).sqrt()),
            };
            let bytes = (0..shape.iter().product()).flat_map(|_| (middle + spread * uniform()).to_le_bytes()).collect();
            (name, shape, bytes)
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name.as_str(), ::safetensors::tensor::TensorView::new(::safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
    });
    ::safetensors::serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    (folder, checkpoint)
}

/// Shapes that no released model has: odd widths, one head, one token in the vocabulary's tail, one layer, heads wider than the stream.
#[test]
fn odd_shapes_agree_with_the_naive_pass() {
    let shapes = [
        // hidden, intermediate, layers, heads, kv_heads, head_dim, vocab, tied, bias
        (20, 33, 2, 2, 1, 10, 7, false, false),
        (17, 5, 1, 1, 1, 2, 131, true, false),
        (48, 96, 3, 6, 3, 8, 257, false, true),
        (24, 40, 2, 4, 2, 16, 50, true, true),
        (96, 64, 1, 12, 4, 34, 1000, false, false),
    ];
    let device = puna_cpu::device(puna_cpu::Options::default()).unwrap();
    for (at, (hidden, intermediate, layers, heads, kv_heads, head_dim, vocab, tied, bias)) in shapes.into_iter().enumerate() {
        let config = format!(
            r#"{{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_act":"silu","hidden_size":{hidden},
            "intermediate_size":{intermediate},"num_hidden_layers":{layers},"num_attention_heads":{heads},"num_key_value_heads":{kv_heads},
            "head_dim":{head_dim},"vocab_size":{vocab},"max_position_embeddings":2048,"rms_norm_eps":1e-6,"rope_theta":10000.0,
            "tie_word_embeddings":{tied},"attention_bias":{bias},"mlp_bias":{bias}}}"#
        );
        let (_folder, checkpoint) = random_checkpoint(&config, at as u32 + 1);
        let engine = puna_llama::Model::loader().engine(&checkpoint, &device).unwrap();
        for length in [1, 2, 70] {
            let ids: Vec<usize> = (0..length).map(|i| (i * 31 + at) % vocab).collect();
            let naive = Naive { checkpoint: &checkpoint, config: checkpoint.config() }.forward(&ids).concat();
            let tokens: Vec<u32> = ids.iter().map(|id| *id as u32).collect();
            let made = engine.llama.sequence_logits(&tokens).unwrap().to_vec::<f32>().unwrap();
            let off: f64 = made.iter().zip(&naive).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
            let error = (off / naive.iter().map(|b| b * b).sum::<f64>()).sqrt();
            assert!(error < 1e-5, "shape {at}, {length} tokens: relative error {error:e}");
        }
    }
}

/// A step of every kind runs on kernels of its own on the CPU, in every dtype: nothing is lowered.
#[test]
fn no_op_of_a_step_is_lowered_on_the_cpu() {
    for (model, dtype) in [
        ("models/bias", None),
        ("models/bias", Some(DType::F64)),
        ("models/llama3.2-tied", Some(DType::BF16)),
        ("models/sharded-bf16", Some(DType::F16)),
        ("gguf/kquants/model.gguf", None),
        ("gguf/basic/model.gguf", Some(DType::F32)),
    ] {
        let device = puna_cpu::device(puna_cpu::Options::default()).unwrap();
        let checkpoint = Checkpoint::open(golden(model)).unwrap();
        let loader = puna_llama::Model::loader();
        let engine = if let Some(dtype) = dtype { loader.dtype(dtype) } else { loader }.engine(&checkpoint, &device).unwrap();
        engine.llama.sequence_logits(&[1, 2, 3]).unwrap();
        let mut batch = engine.batch();
        batch.add(&[1, 2, 3], puna_llama::Options { max_tokens: Some(3), ..Default::default() }).unwrap();
        while !batch.is_done() {
            batch.step().unwrap();
        }
        assert_eq!(device.lowered(), [], "{model} {dtype:?}");
    }
}
