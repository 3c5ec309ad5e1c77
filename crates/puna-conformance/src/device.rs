//! What a device does beside computing: holding bytes, running steps, taking ops from outside.

use std::sync::Arc;

use puna_tensor::op::{CustomOp, Inferred};
use puna_tensor::{BlockType, DType, Device, Error, Kind, Op, Result, Tensor};

use crate::array::integers;
use crate::blocks::random_blocks;
use crate::case::{Case, cases};
use crate::check::same_bits;
use crate::draw::{Draw, tensor};
use crate::floats;

pub(crate) const CASES: &[Case] = cases! {
    "(device)" => bytes_come_back_as_they_went, lent_bytes_are_read_and_never_written, zeros_of_every_dtype_are_zeros, elements_are_overwritten_in_order,
        what_is_fetched_is_of_its_moment, a_step_gives_its_result_or_error, a_recorded_step_runs_on_what_its_tensors_hold,
        what_cannot_be_recorded_is_refused, what_is_prepared_changes_nothing, threads_may_share_a_device, an_op_from_outside_passes_through_the_door, tensors_print_in_every_dtype;
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
    let x = tensor(device, &Draw::new(233).floats(&[64], DType::F32), DType::F32);
    let outside = x.exp().and_then(|x| x.sum_all()).expect("outside");
    for _ in 0..3 {
        let inside = device.step(|| x.exp()?.sum_all()).expect("a step");
        same_bits("inside a step", &inside, &outside);
    }
    let error = device.step(|| Err::<(), _>(Error::new(Kind::Argument, "a step", "fails"))).expect_err("a step that fails");
    assert_eq!(error.kind(), Kind::Argument);
    assert!(device.step(|| x.exp()).is_ok(), "a step after one that failed");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| device.step(|| -> Result<()> { panic!("inside") })));
    assert!(panicked.is_err() && device.step(|| x.exp()).is_ok(), "a step after one that panicked");
    device.synchronize().expect("synchronize");
}

fn elements_are_overwritten_in_order(device: &Device) {
    let x = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3], device).expect("room");
    let before = x.affine(2.0, 0.0).expect("enqueued before");
    let version = x.buffer().version();
    x.write(2, &[-3f32, -4.0]).expect("a part");
    x.write::<f32>(6, &[]).expect("nothing, at the end");
    assert!(x.buffer().version() > version, "a change is seen");
    assert_eq!(x.to_vec::<f32>().expect("readable"), [1.0, 2.0, -3.0, -4.0, 5.0, 6.0]);
    assert_eq!(before.to_vec::<f32>().expect("readable"), [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
    x.slice(0, 1, 1).and_then(|row| row.write(1, &[7f32])).expect("a row is contiguous");
    assert_eq!(x.to_vec::<f32>().expect("readable"), [1.0, 2.0, -3.0, -4.0, 7.0, 6.0]);
    let refused = |result: Result<()>, kind| assert_eq!(result.expect_err("refused").kind(), kind);
    refused(x.write(5, &[0f32, 0.0]), Kind::Shape);
    refused(x.write::<f32>(7, &[]), Kind::Shape);
    refused(x.write(0, &[0u32]), Kind::DType);
    refused(x.transpose(0, 1).and_then(|x| x.write(0, &[0f32])), Kind::Argument);
    refused(x.tracked().exp().and_then(|y| y.write(0, &[0f32])), Kind::InPlace);
}

fn what_is_fetched_is_of_its_moment(device: &Device) {
    let x = Tensor::from_slice(&[1u32, 2, 3, 4], [2, 2], device).expect("room");
    let (whole, turned) = (x.fetch::<u32>().expect("begun"), x.transpose(0, 1).and_then(|x| x.fetch::<u32>()).expect("begun"));
    let unread = x.fetch::<u32>().expect("begun");
    x.write(0, &[9u32, 9, 9, 9]).expect("written");
    let later = x.slice(0, 0, 1).and_then(|x| x.fetch::<u32>()).expect("begun");
    drop(unread);
    assert_eq!(later.wait().expect("arrived"), [9, 9]);
    assert_eq!(turned.wait().expect("arrived"), [1, 3, 2, 4]);
    assert_eq!(whole.wait().expect("arrived"), [1, 2, 3, 4]);
    assert_eq!(x.fetch::<f32>().expect_err("of another dtype").kind(), Kind::DType);
}

/// A step that reads `x`, changes `sum` in place, and needs memory on the way.
fn some_step(x: &Tensor, sum: &Tensor) -> Result<Tensor> {
    let y = x.matmul(&x.transpose(0, 1)?)?.softmax()?;
    sum.assign(&sum.add(&y.sum(0)?)?)?;
    y.add(&y)?.sum_all()
}

fn a_recorded_step_runs_on_what_its_tensors_hold(device: &Device) {
    let rows = |seed| -> Vec<f32> { Draw::new(seed).floats(&[17, 40], DType::F32).values.iter().map(|v| *v as f32).collect() };
    let make = |seed| Tensor::from_slice(&rows(seed), [17, 40], device).expect("room");
    let (x, sum) = (make(236), Tensor::zeros(17, DType::F32, device).expect("room"));
    let expected = Tensor::zeros(17, DType::F32, device).expect("room");
    let mut ran = false;
    let recorded = device.record(|| {
        ran = true;
        some_step(&x, &sum)
    });
    let recorded = recorded.expect("a step of ops");
    assert_eq!((ran, recorded.is_some()), (device.records(), device.records()));
    let Some((recording, y)) = recorded else { return };
    same_bits("what was recorded is not computed", &sum, &expected);
    for seed in [236, 237, 238] {
        x.write(0, &rows(seed)).expect("written");
        // Memory that is free at this moment is used by others between replays.
        let others: Vec<Tensor> = (0..4).map(|_| make(239)).collect();
        recording.replay().expect("a replay");
        let alone = some_step(&make(seed), &expected).expect("a step");
        same_bits("a replay's result", &y, &alone);
        same_bits("what a replay changes", &sum, &expected);
        others.iter().for_each(|other| same_bits("what is not the step's", other, &make(239)));
    }
    // What it reads lives as long as it does.
    let kept = y.clone();
    drop((x, sum));
    let others: Vec<Tensor> = (0..4).map(|_| make(240)).collect();
    recording.replay().expect("a replay of what nobody else holds");
    same_bits("its result", &kept, &some_step(&make(238), &expected).expect("a step"));
    others.iter().for_each(|other| same_bits("what is not the step's", other, &make(240)));
    drop(recording);
    assert!(kept.add(&kept).and_then(|y| y.to_vec::<f32>()).is_ok(), "a result outlives its recording");
}

fn what_cannot_be_recorded_is_refused(device: &Device) {
    if !device.records() {
        return;
    }
    let x = tensor(device, &Draw::new(241).floats(&[64], DType::F32), DType::F32);
    let expected = x.exp().expect("an op");
    let works = |what| {
        same_bits(what, &x.exp().expect("an op"), &expected);
        let (recording, y) = device.record(|| x.exp()).expect("a step").expect("it records");
        recording.replay().expect("a replay");
        same_bits(what, &y, &expected);
    };
    let refused = |what, f: &dyn Fn() -> Result<Tensor>| {
        let error = device.record(|| x.exp().and_then(|_| f())).expect_err(what);
        assert!(matches!(error.kind(), Kind::Backend | Kind::Argument), "{what}: {error}");
        works(what);
    };
    refused("an upload", &|| Tensor::from_slice(&[1f32], 1, device));
    refused("a download", &|| x.to_vec::<f32>().map(|_| x.clone()));
    refused("a fetch", &|| x.fetch::<f32>().map(|_| x.clone()));
    refused("a write", &|| x.write(0, &[1f32]).map(|()| x.clone()));
    refused("a wait", &|| device.synchronize().map(|()| x.clone()));
    refused("a step within", &|| device.record(|| x.exp()).map(|_| x.clone()));
    let (recording, _) = device.record(|| x.exp()).expect("a step").expect("it records");
    refused("a replay within", &|| recording.replay().map(|()| x.clone()));
    refused("what fails itself", &|| Err(Error::new(Kind::Argument, "a step", "fails")));
    let panicking = || device.record(|| x.exp().map(|_| -> Tensor { panic!("inside") }));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panicking)).is_err());
    works("a panic");
    // Others wait while a step is recorded, and compute as ever.
    std::thread::scope(|scope| {
        let other = scope.spawn(|| (0..50).all(|_| x.exp().and_then(|y| y.to_vec::<f32>()).is_ok()));
        (0..20).for_each(|_| works("beside another thread"));
        assert!(other.join().expect("no panic"));
    });
}

fn what_is_prepared_changes_nothing(device: &Device) {
    let x = tensor(device, &Draw::new(242).floats(&[17, 40], DType::F32), DType::F32);
    let (sum, expected) = ([0, 1].map(|_| Tensor::zeros(17, DType::F32, device).expect("room"))).into();
    device.prepare(|| some_step(&x, &sum).map(drop)).expect("its kernels are there");
    same_bits("what was prepared is not computed", &sum, &expected);
    let (y, alone) = (some_step(&x, &sum).expect("a step"), some_step(&x, &expected).expect("a step"));
    same_bits("a step after it was prepared", &y, &alone);
    same_bits("what it changes", &sum, &expected);
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
