//! What goes wrong is told, and the device works on.

use puna_cuda::{Edit, EmulatorOptions, emulated, emulated_with};
use puna_tensor::{DType, Device, Kind, Tensor};

fn works(device: &Device) {
    let x = Tensor::from_slice(&[1f32, 2.0, 3.0], 3, device).expect("room");
    assert_eq!(x.add(&x).and_then(|y| y.to_vec::<f32>()).expect("a sum"), [2.0, 4.0, 6.0]);
}

#[test]
fn a_kernel_that_does_not_compile_is_told_in_the_compilers_words() {
    let edit = Edit { source: "softmax.cu", from: "A most = -infinity_of<A>();", to: "A most = no_such_name;" };
    let device = emulated_with(EmulatorOptions::default(), vec![edit]).expect("a C++ compiler");
    let x = Tensor::from_slice(&[1f32, 2.0], 2, &device).expect("room");
    let error = x.softmax().expect_err("it does not compile");
    assert_eq!(error.kind(), Kind::Backend);
    assert!(error.to_string().contains("no_such_name"), "{error}");
    works(&device);
}

#[test]
fn a_kernel_that_fails_is_told_with_its_place() {
    let edit = Edit {
        source: "norm.cu",
        from: "    squares = block_reduce",
        to: "    if (row == 1) __trap();\n    squares = block_reduce",
    };
    let device = emulated_with(EmulatorOptions::default(), vec![edit]).expect("a C++ compiler");
    let x = Tensor::zeros([3, 8], DType::F32, &device).expect("room");
    let error = x.rms_norm_unweighted(1e-5).expect_err("it traps");
    assert!(error.to_string().contains("norm.cu") && error.to_string().contains("block (1,0,0)"), "{error}");
    works(&device);
}

#[test]
fn more_than_there_is_is_told_and_nothing_is_lost() {
    let device = emulated(EmulatorOptions::default()).expect("a C++ compiler");
    let error = Tensor::zeros([1 << 20, 1 << 20], DType::F32, &device).expect_err("four TiB");
    assert_eq!(error.kind(), Kind::Memory);
    assert!(error.to_string().contains("4096.00 GiB"), "{error}");
    works(&device);
    assert_eq!(puna_cuda::memory_use(&device).expect("a CUDA device").allocated, 0);
}

#[test]
fn two_devices_share_a_card_and_no_tensor() {
    let [a, b] = [(), ()].map(|()| emulated(EmulatorOptions::default()).expect("a C++ compiler"));
    works(&a);
    works(&b);
    let (x, y) = (Tensor::zeros(3, DType::F32, &a).expect("room"), Tensor::zeros(3, DType::F32, &b).expect("room"));
    assert_eq!(x.add(&y).expect_err("they lie apart").kind(), Kind::Device);
}

#[test]
fn a_machine_without_a_card_is_told_what_it_lacks() {
    // Where there is a card, there are not so many.
    let error = puna_cuda::device(4096, puna_cuda::Options::default()).expect_err("no such card");
    let text = error.to_string();
    assert!(text.starts_with("cuda:4096: no ") || text.starts_with("cuda:4096: cu"), "{text}");
}
