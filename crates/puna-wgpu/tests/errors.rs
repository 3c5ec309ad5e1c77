//! What goes wrong is an error that says so, with the adapter's name and the limit; the device works on.

use puna_tensor::{DType, Device, Kind, Tensor};
use puna_wgpu::{Choice, Limits, Options};

/// A device; `None`, said aloud, where there is no adapter and `PUNA_REQUIRE_WGPU` does not ask for one.
fn device(options: Options) -> Option<Device> {
    match puna_wgpu::device(&Choice::Any, options) {
        Ok(device) => Some(device),
        Err(error) if std::env::var_os("PUNA_REQUIRE_WGPU").is_none() => {
            eprintln!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn an_adapter_that_is_not_there_is_named_beside_those_that_are() {
    for choice in ["wgpu:4711", "wgpu:no such card"] {
        let choice: Choice = choice.parse().unwrap();
        let error = puna_wgpu::device(&choice, Options::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::Device, "{error}");
    }
}

#[test]
fn what_does_not_fit_is_refused_with_the_numbers() {
    let Some(device) = device(Options { memory_limit: Some(1 << 20), ..Options::default() }) else { return };
    let error = Tensor::zeros([1024, 1024], DType::F32, &device).unwrap_err();
    assert_eq!(error.kind(), Kind::Memory);
    for word in ["4194304 bytes", "limit 0.00 GiB"] {
        assert!(error.to_string().contains(word), "{error}");
    }
    // And what fits still does.
    let x = Tensor::full(2.0, [16, 16], DType::F32, &device).unwrap();
    assert_eq!(x.add(&x).unwrap().to_vec::<f32>().unwrap(), [4.0; 256]);
    let used = puna_wgpu::memory_use(&device).unwrap();
    assert!(used.allocated >= 1024 && used.reserved <= 1 << 20 && used.peak >= used.allocated, "{used:?}");
}

#[test]
fn a_buffer_beyond_the_limit_is_refused_with_it() {
    let Some(device) = device(Options { limits: Limits::WebGpu, ..Options::default() }) else { return };
    let error = Tensor::zeros([1 << 30], DType::F32, &device).unwrap_err();
    assert_eq!(error.kind(), Kind::Memory);
    assert!(error.to_string().contains("268435456"), "{error}");
}

#[test]
fn doubles_are_held_and_not_computed_with() {
    let Some(device) = device(Options::default()) else { return };
    let x = Tensor::from_slice(&[1.0f64, 2.0, 3.0, 4.0], [2, 2], &device).unwrap();
    assert_eq!(x.transpose(0, 1).unwrap().to_vec::<f64>().unwrap(), [1.0, 3.0, 2.0, 4.0]);
    let error = x.exp().unwrap_err();
    assert_eq!(error.kind(), Kind::DType);
    assert!(error.to_string().contains("f32"), "{error}");
}

#[test]
fn a_weight_larger_than_a_binding_is_read_in_parts() {
    let Some(device) = device(Options { limits: Limits::WebGpu, ..Options::default() }) else { return };
    // 160 MiB, where a binding shows 128.
    let (rows, k) = (1 << 14, 2560);
    let column = Tensor::arange(rows, &device).and_then(|x| x.cast(DType::F32)).unwrap();
    let weight = column.reshape([rows, 1]).and_then(|x| x.broadcast([rows, k])).and_then(|x| x.contiguous()).unwrap();
    let x = Tensor::full(0.5, [2, k], DType::F32, &device).unwrap();
    let y = x.linear(&weight, puna_tensor::op::Activations::Exact).unwrap().to_vec::<f32>().unwrap();
    // 2,560 roundings of sums that all grow.
    let near = |i: usize| (y[i] - (i % rows) as f32 * 1280.0).abs() <= (i % rows) as f32 * 0.2;
    assert_eq!((0..2 * rows).find(|&i| !near(i)), None);
    let index = Tensor::from_slice(&[0u32, 16383, 9000], 3, &device).unwrap();
    let taken = weight.gather_rows(&index).unwrap().to_vec::<f32>().unwrap();
    assert_eq!([taken[0], taken[k], taken[3 * k - 1]], [0.0, 16383.0, 9000.0]);
    assert_eq!(weight.affine(2.0, 1.0).unwrap().slice(0, rows - 1, 1).unwrap().to_vec::<f32>().unwrap(), vec![32767.0; k]);
}
