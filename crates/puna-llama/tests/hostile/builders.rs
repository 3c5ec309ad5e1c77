//! Small files, right and wrong, byte by byte.

use puna_llama::weights::mmap::MappedFile;

pub(crate) fn file(name: &str, bytes: &[u8]) -> MappedFile {
    MappedFile::from_vec(name, bytes.to_vec())
}

/// A safetensors file of a header and as many bytes of data.
pub(crate) fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend((0..data).map(|i| i as u8));
    out
}

pub(crate) fn good_safetensors() -> Vec<u8> {
    safetensors(
        r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},"c":{"dtype":"I32","shape":[],"data_offsets":[32,36]}}"#,
        36,
    )
}

/// GGUF's text: a length and bytes.
pub(crate) fn text(text: &str) -> Vec<u8> {
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend(text.as_bytes());
    out
}

/// A metadata entry: key, type, the value's bytes.
pub(crate) fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [text(key), kind.to_le_bytes().to_vec(), value.to_vec()].concat()
}

pub(crate) fn u32_entry(key: &str, value: u32) -> Vec<u8> {
    entry(key, 4, &value.to_le_bytes())
}

pub(crate) fn text_entry(key: &str, value: &str) -> Vec<u8> {
    entry(key, 8, &text(value))
}

pub(crate) fn array_entry(key: &str, kind: u32, length: u64, bytes: &[u8]) -> Vec<u8> {
    entry(key, 9, &[kind.to_le_bytes().to_vec(), length.to_le_bytes().to_vec(), bytes.to_vec()].concat())
}

/// A tensor's description: name, axes (fastest first), type, offset.
pub(crate) fn described(name: &str, axes: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut out = text(name);
    out.extend((axes.len() as u32).to_le_bytes());
    axes.iter().for_each(|axis| out.extend(axis.to_le_bytes()));
    out.extend(kind.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out
}

/// A GGUF file, version 3, alignment 32, with as many bytes of data.
pub(crate) fn gguf(metadata: &[Vec<u8>], tensors: &[Vec<u8>], data: usize) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    metadata.iter().chain(tensors).for_each(|bytes| out.extend(bytes));
    out.resize(out.len().next_multiple_of(32) + data, 1);
    out
}

/// The metadata of a Llama of one layer.
pub(crate) fn llama_metadata() -> Vec<Vec<u8>> {
    vec![
        text_entry("general.architecture", "llama"),
        u32_entry("llama.context_length", 64),
        u32_entry("llama.embedding_length", 8),
        u32_entry("llama.block_count", 1),
        u32_entry("llama.feed_forward_length", 16),
        u32_entry("llama.attention.head_count", 2),
        u32_entry("llama.attention.head_count_kv", 1),
        entry("llama.attention.layer_norm_rms_epsilon", 6, &1e-5f32.to_le_bytes()),
        entry("llama.rope.freq_base", 6, &10000f32.to_le_bytes()),
    ]
}

/// A whole Llama of one layer: 8 wide, 2 heads of 4, 1 kv head, 16 in the middle, 5 tokens.
pub(crate) fn good_gguf() -> Vec<u8> {
    let tensors: [(&str, &[u64]); 12] = [
        ("token_embd.weight", &[8, 5]),
        ("blk.0.attn_norm.weight", &[8]),
        ("blk.0.attn_q.weight", &[8, 8]),
        ("blk.0.attn_k.weight", &[8, 4]),
        ("blk.0.attn_v.weight", &[8, 4]),
        ("blk.0.attn_output.weight", &[8, 8]),
        ("blk.0.ffn_norm.weight", &[8]),
        ("blk.0.ffn_gate.weight", &[8, 16]),
        ("blk.0.ffn_up.weight", &[8, 16]),
        ("blk.0.ffn_down.weight", &[16, 8]),
        ("output_norm.weight", &[8]),
        ("rope_freqs.weight", &[2]),
    ];
    let (mut descriptions, mut offset) = (Vec::new(), 0u64);
    for (name, axes) in tensors {
        descriptions.push(described(name, axes, 0, offset));
        offset = (offset + 4 * axes.iter().product::<u64>()).next_multiple_of(32);
    }
    let mut metadata = llama_metadata();
    metadata.push(text_entry("tokenizer.ggml.model", "llama"));
    metadata.push(array_entry("tokenizer.ggml.tokens", 8, 5, &["<s>", "</s>", "a", "b", "<0x0A>"].map(text).concat()));
    metadata.push(array_entry("tokenizer.ggml.scores", 6, 5, &[0; 20]));
    metadata.push(u32_entry("tokenizer.ggml.eos_token_id", 1));
    let mut out = gguf(&metadata, &descriptions, offset as usize);
    // The factors are numbers that can be.
    let at = out.len() - 32;
    out[at..at + 8].copy_from_slice(&[1f32.to_le_bytes(), 2f32.to_le_bytes()].concat());
    out
}

/// A zip archive of stored entries.
pub(crate) fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    let le16 = |n: usize| (n as u16).to_le_bytes();
    let le32 = |n: usize| (n as u32).to_le_bytes();
    for (name, bytes) in entries {
        let offset = out.len();
        // version, flags, method, time, date, checksum, sizes, lengths
        let middle =
            [&[0u8; 2][..], &[0; 2], &[0; 4], &[0; 4], &le32(bytes.len()), &le32(bytes.len()), &le16(name.len()), &le16(0)];
        out.extend([&b"PK\x03\x04"[..], &[20, 0], &middle.concat(), name.as_bytes(), bytes].concat());
        let tail = [&[0u8; 2][..], &[0; 2], &[0; 2], &[0; 4], &le32(offset)];
        directory.extend([&b"PK\x01\x02"[..], &[20, 0, 20, 0], &middle.concat(), &tail.concat(), name.as_bytes()].concat());
    }
    let (offset, size) = (out.len(), directory.len());
    out.extend(directory);
    let n = le16(entries.len());
    out.extend([&b"PK\x05\x06"[..], &[0; 4], &n, &n, &le32(size), &le32(offset), &[0; 2]].concat());
    out
}

/// Opcodes of a pickle.
pub(crate) mod op {
    pub(crate) fn text(text: &str) -> Vec<u8> {
        [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
    }

    pub(crate) fn int(value: i64) -> Vec<u8> {
        [&[0x8a, 8], &value.to_le_bytes()[..]].concat()
    }

    pub(crate) fn global(module: &str, class: &str) -> Vec<u8> {
        format!("c{module}\n{class}\n").into_bytes()
    }

    pub(crate) fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
        [b"(", &items.concat()[..], b"t"].concat()
    }

    /// A tensor: class, key and elements of its storage, offset, shape, strides.
    pub(crate) fn tensor(class: &str, key: &str, elements: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
        let ints = |values: &[i64]| tuple(&values.iter().map(|v| int(*v)).collect::<Vec<_>>());
        let id = tuple(&[text("storage"), global("torch", class), text(key), text("cpu"), int(elements)]);
        let storage = [&id[..], b"Q"].concat();
        let hooks = [&global("collections", "OrderedDict")[..], b")R"].concat();
        let arguments = tuple(&[storage, int(offset), ints(shape), ints(strides), vec![0x89], hooks]);
        [&global("torch._utils", "_rebuild_tensor_v2")[..], &arguments, b"R"].concat()
    }

    /// A pickled dict.
    pub(crate) fn dict(items: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let items: Vec<u8> = items.iter().flat_map(|(name, value)| [text(name), value.clone()].concat()).collect();
        [&[0x80, 2][..], b"}(", &items, b"u."].concat()
    }
}

/// A file as `torch.save` writes it, of a pickle and storages.
pub(crate) fn pth(pickle: &[u8], storages: &[(&str, usize)]) -> Vec<u8> {
    let data: Vec<(String, Vec<u8>)> =
        storages.iter().map(|(key, bytes)| (format!("x/data/{key}"), (0..*bytes).map(|i| i as u8).collect())).collect();
    let mut entries: Vec<(&str, &[u8])> = vec![("x/data.pkl", pickle), ("x/byteorder", b"little")];
    entries.extend(data.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())));
    zip(&entries)
}

/// Two tensors: one row-major, one a transposed view of the second storage.
pub(crate) fn good_pth() -> Vec<u8> {
    let a = op::tensor("FloatStorage", "0", 6, 0, &[2, 3], &[3, 1]);
    let b = op::tensor("BFloat16Storage", "1", 8, 1, &[3, 2], &[1, 3]);
    pth(&op::dict(&[("a", a), ("b", b)]), &[("0", 24), ("1", 16)])
}
