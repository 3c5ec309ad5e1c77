//! What a device does beside computing: holding bytes, running steps, taking ops from outside.

use std::sync::Arc;

use puna_tensor::op::{CustomOp, Inferred};
use puna_tensor::{BlockType, DType, Device, Error, Kind, Op, Result, StepKey, Tensor};

use crate::array::integers;
use crate::blocks::random_blocks;
use crate::case::{Case, cases};
use crate::check::same_bits;
use crate::draw::{Draw, tensor};
use crate::floats;

pub(crate) const CASES: &[Case] = cases! {
    "(device)" => bytes_come_back_as_they_went, lent_bytes_are_read_and_never_written, zeros_of_every_dtype_are_zeros, a_step_gives_its_result_or_error,
        threads_may_share_a_device, an_op_from_outside_passes_through_the_door, tensors_print_in_every_dtype;
};

fn bytes_come_back_as_they_went(device: &Device) {
    let mut draw = Draw::new(230);
    for dtype in DType::all() {
        for rows in [0, 1, 3, 1000] {
            let bytes: Vec<u8> = (0..rows * 2 * dtype.unit_bytes()).map(|_| draw.bits() as u8).collect();
            let t = Tensor::from_bytes(&bytes, dtype, [rows, 2 * dtype.unit()], device).expect("upload");
            assert_eq!(t.to_bytes().expect("download"), bytes, "{dtype} [{rows}, ..]");
            if rows > 2 {
                let cut = t.slice(0, 1, rows - 2).and_then(|t| t.to_bytes()).expect("a part");
                assert_eq!(cut, bytes[2 * dtype.unit_bytes()..][..cut.len()], "{dtype}, a part");
            }
        }
    }
}

fn lent_bytes_are_read_and_never_written(device: &Device) {
    for block in BlockType::ALL {
        let (bytes, _) = random_blocks(block, &[3, block.values()], 231);
        let shape = [3, block.values()];
        let copied =
            Tensor::from_bytes(&bytes, DType::Block(block), shape, device).and_then(|w| w.cast(DType::F32)).expect("blocks");
        let lent = Tensor::from_host(Arc::new(bytes), DType::Block(block), shape, device)
            .and_then(|w| w.cast(DType::F32))
            .expect("lent");
        same_bits(&format!("{block} lent"), &lent, &copied);
    }
    // Bytes that begin at any address, as a tensor inside a file does.
    struct Behind(Vec<u8>, usize);
    impl AsRef<[u8]> for Behind {
        fn as_ref(&self) -> &[u8] {
            &self.0[self.1..]
        }
    }
    for offset in 0..9 {
        let x = Draw::new(232).floats(&[5, 7], DType::F32);
        let bytes: Vec<u8> =
            std::iter::repeat_n(0, offset).chain(x.values.iter().flat_map(|v| (*v as f32).to_le_bytes())).collect();
        let host = Arc::new(Behind(bytes.clone(), offset));
        let lent = Tensor::from_host(host.clone(), DType::F32, [5, 7], device).expect("lent");
        assert_eq!(floats(&lent), x, "bytes from {offset} on");
        // Where the device reads them in place, it refuses to write; else it has written its own copy.
        if let Err(error) = lent.assign(&tensor(device, &x.map(|v| -v), DType::F32)) {
            assert!(!matches!(error.kind(), Kind::Unsupported | Kind::Shape | Kind::DType), "{error:?}");
            assert_eq!(floats(&lent), x, "what was refused was not written");
        }
        assert_eq!(host.0, bytes, "lent bytes are not the device's to change");
    }
}

fn zeros_of_every_dtype_are_zeros(device: &Device) {
    for dtype in DType::all() {
        let t = Tensor::zeros([3, 2 * dtype.unit()], dtype, device).expect("zeros");
        let zero = match dtype {
            DType::Block(_) => floats(&t.cast(DType::F32).expect("decode")).values.iter().all(|v| *v == 0.0),
            _ if dtype.is_float() => floats(&t).values.iter().all(|v| *v == 0.0),
            _ => integers(&t).values.iter().all(|v| *v == 0),
        };
        assert!(zero, "zeros of {dtype}");
    }
}

fn a_step_gives_its_result_or_error(device: &Device) {
    let key = StepKey { program: 1, tokens: 1, sequences: 1 };
    let x = tensor(device, &Draw::new(233).floats(&[64], DType::F32), DType::F32);
    let outside = x.exp().and_then(|x| x.sum_all()).expect("outside");
    for _ in 0..3 {
        let inside = device.step(key, || x.exp()?.sum_all()).expect("a step");
        same_bits("inside a step", &inside, &outside);
    }
    let error = device.step(key, || Err::<(), _>(Error::new(Kind::Argument, "a step", "fails"))).expect_err("a step that fails");
    assert_eq!(error.kind(), Kind::Argument);
    assert!(device.step(key, || x.exp()).is_ok(), "a step after one that failed");
    let panicked =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| device.step(key, || -> Result<()> { panic!("inside") })));
    assert!(panicked.is_err() && device.step(key, || x.exp()).is_ok(), "a step after one that panicked");
    device.synchronize().expect("synchronize");
}

fn threads_may_share_a_device(device: &Device) {
    let x = tensor(device, &Draw::new(234).floats(&[65, 65], DType::F32), DType::F32);
    let run = || x.matmul(&x).and_then(|y| y.softmax()?.sum(0)).expect("ops").to_bytes().expect("readable");
    let expected = run();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| (0..20).map(|_| run()).all(|bytes| bytes == expected))).collect();
        assert!(threads.into_iter().all(|t| t.join().expect("no panic")), "ops of several threads at once");
    });
}

#[derive(Debug)]
struct Twice;

impl CustomOp for Twice {
    fn name(&self) -> &'static str {
        "twice"
    }

    fn infer(&self, inputs: &[&Tensor], tracked: bool) -> Result<Inferred> {
        let x = inputs[0];
        Ok(Inferred::one(*x.shape(), x.dtype()).saving(tracked, *x.shape(), x.dtype()))
    }

    fn lower(&self, inputs: &[&Tensor], tracked: bool) -> Result<Vec<Tensor>> {
        let y = inputs[0].add(inputs[0])?;
        Ok(if tracked { vec![y, inputs[0].neg()?] } else { vec![y] })
    }
}

fn an_op_from_outside_passes_through_the_door(device: &Device) {
    let x = tensor(device, &Draw::new(235).floats(&[3, 5], DType::F32), DType::F32);
    let y = Op::Custom(Arc::new(Twice)).apply(&[&x]).and_then(|o| o.one()).expect("twice");
    same_bits("twice", &y, &x.add(&x).expect("add"));
    assert!(device.lowered().iter().any(|l| l.op == "twice"), "its lowering is counted");
    let y = Op::Custom(Arc::new(Twice)).apply(&[&x.tracked()]).and_then(|o| o.one()).expect("twice");
    let (node, _) = y.source().expect("it is recorded");
    assert!(matches!(node.op(), Op::Custom(op) if op.name() == "twice"));
    same_bits("what it saved", &node.output(1).expect("saved"), &x.neg().expect("neg"));
}

fn tensors_print_in_every_dtype(device: &Device) {
    for dtype in DType::all() {
        let t = Tensor::zeros([2, dtype.unit()], dtype, device).expect("zeros");
        let text = t.to_string();
        assert!(text.contains(dtype.name()) && text.contains(device.name()) && text.starts_with('['), "{text}");
    }
    let t = Tensor::from_slice(&[1.5f32, f32::NAN, f32::INFINITY, -0.25], [2, 2], device).expect("a tensor");
    assert!(t.to_string().contains("1.5") && t.to_string().contains("NaN") && t.to_string().contains("inf"), "{t}");
}
