//! Elements from one dtype to another, in parallel.

use std::borrow::Cow;

use half::{bf16, f16};
use puna_quant::{decode, encode};
use puna_tensor::DType;
use rayon::prelude::*;

use crate::error::{Error, Kind, Result};

/// How many elements a thread takes at a time: whole blocks of every type, and little memory for each thread.
const RUN: usize = 1 << 16;

/// Converts on threads of its own, so that a program's other work keeps its pool.
pub(super) struct Converter {
    pool: rayon::ThreadPool,
}

impl Converter {
    pub(super) fn new() -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new().thread_name(|i| format!("puna-convert-{i}")).build();
        let pool = pool.map_err(|e| Error::new(Kind::Io, "convert", format!("cannot start threads: {e}")).with_source(e))?;
        Ok(Self { pool })
    }

    /// Elements of another dtype: by way of f32, rounded to the nearest, ties to even. Equal dtypes keep every bit.
    ///
    /// Errors: a dtype that is neither float nor blocks; a finite value beyond the range of the target; a NaN or an infinity on the
    /// way to blocks, which have no place for it.
    pub(super) fn convert(&self, name: &str, bytes: Cow<'_, [u8]>, from: DType, to: DType) -> Result<Vec<u8>> {
        if from == to {
            return Ok(bytes.into_owned());
        }
        let is_known = |dtype: DType| dtype.is_float() || dtype.block().is_some();
        if !is_known(from) || !is_known(to) || to == DType::F64 {
            return Err(Error::unsupported(
                name,
                format!("{from} does not become {to}; f32, f16, bf16 and blocks become each other"),
            ));
        }
        let elements = bytes.len() / from.unit_bytes() * from.unit();
        let sizes = [from.bytes_for(RUN), to.bytes_for(RUN), to.bytes_for(elements)];
        let [Some(from_run), Some(to_run), Some(size)] = sizes else {
            let message = format!("{elements} elements of {from} are no whole number of {to} of {}", to.unit());
            return Err(Error::new(Kind::Misshapen, name, message));
        };
        let mut out = vec![0; size];
        let fault = self.pool.install(|| {
            let runs = bytes.par_chunks(from_run).zip(out.par_chunks_mut(to_run)).enumerate();
            runs.try_for_each_init(
                || vec![0f32; RUN],
                |values, (run, (bytes, out))| {
                    let values = &mut values[..bytes.len() / from.unit_bytes() * from.unit()];
                    read(from, bytes, values).and_then(|()| write(to, values, out)).map_err(|(at, fault)| (run * RUN + at, fault))
                },
            )
        });
        match fault {
            Ok(()) => Ok(out),
            Err((at, Fault::Overflow(value))) => {
                let message = format!("element {at} is {value}, beyond the range of {to}; bf16 or f32 would hold it");
                Err(Error::new(Kind::Unsupported, name, message))
            }
            Err((at, Fault::NotFinite(value))) => {
                let message =
                    format!("element {at} is {value}, which {to} blocks have no place for; a float dtype would hold it");
                Err(Error::new(Kind::Unsupported, name, message))
            }
            Err((_, Fault::Length(e))) => Err(Error::new(Kind::Misshapen, name, e.to_string()).with_source(e)),
        }
    }
}

enum Fault {
    Overflow(f64),
    NotFinite(f64),
    Length(puna_quant::Error),
}

fn read(from: DType, bytes: &[u8], values: &mut [f32]) -> std::result::Result<(), (usize, Fault)> {
    match from {
        DType::F64 => {
            for (at, (value, bytes)) in values.iter_mut().zip(bytes.as_chunks().0).enumerate() {
                let wide = f64::from_le_bytes(*bytes);
                *value = wide as f32;
                if value.is_infinite() && wide.is_finite() {
                    return Err((at, Fault::Overflow(wide)));
                }
            }
        }
        DType::F32 => values.iter_mut().zip(bytes.as_chunks().0).for_each(|(value, bytes)| *value = f32::from_le_bytes(*bytes)),
        DType::F16 => {
            let decode = |(value, bytes): (&mut f32, &[u8; 2])| *value = f16::from_le_bytes(*bytes).to_f32();
            values.iter_mut().zip(bytes.as_chunks().0).for_each(decode);
        }
        DType::BF16 => {
            let decode = |(value, bytes): (&mut f32, &[u8; 2])| *value = bf16::from_le_bytes(*bytes).to_f32();
            values.iter_mut().zip(bytes.as_chunks().0).for_each(decode);
        }
        DType::Block(block) => decode(block, bytes, values).map_err(|e| (0, Fault::Length(e)))?,
        DType::I64 | DType::U32 | DType::U8 => unreachable!("refused before"),
    }
    Ok(())
}

fn write(to: DType, values: &[f32], out: &mut [u8]) -> std::result::Result<(), (usize, Fault)> {
    let overflow = |at: usize| (at, Fault::Overflow(values[at].into()));
    match to {
        DType::F32 => out.as_chunks_mut().0.iter_mut().zip(values).for_each(|(out, value)| *out = value.to_le_bytes()),
        DType::F16 => {
            for (at, (out, value)) in out.as_chunks_mut().0.iter_mut().zip(values).enumerate() {
                let narrow = f16::from_f32(*value);
                if narrow.is_infinite() && value.is_finite() {
                    return Err(overflow(at));
                }
                *out = narrow.to_le_bytes();
            }
        }
        DType::BF16 => {
            for (at, (out, value)) in out.as_chunks_mut().0.iter_mut().zip(values).enumerate() {
                let narrow = bf16::from_f32(*value);
                if narrow.is_infinite() && value.is_finite() {
                    return Err(overflow(at));
                }
                *out = narrow.to_le_bytes();
            }
        }
        DType::Block(block) => {
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                return Err((at, Fault::NotFinite(values[at].into())));
            }
            encode(block, values, out).map_err(|e| (0, Fault::Length(e)))?;
        }
        DType::F64 | DType::I64 | DType::U32 | DType::U8 => unreachable!("refused before"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use puna_tensor::BlockType;

    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn convert(values: &[f32], to: DType) -> Result<Vec<u8>> {
        Converter::new().unwrap().convert("x", bytes(values).into(), DType::F32, to)
    }

    #[test]
    fn runs_join_without_a_seam() {
        let values: Vec<f32> = (0..3 * RUN + 512).map(|i| (i as f32 * 0.37).sin()).collect();
        let halves: Vec<u8> = values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
        assert_eq!(convert(&values, DType::F16).unwrap(), halves);
        let mut blocks = vec![0; values.len() / 256 * BlockType::Q4K.bytes()];
        encode(BlockType::Q4K, &values, &mut blocks).unwrap();
        assert_eq!(convert(&values, DType::Block(BlockType::Q4K)).unwrap(), blocks);
    }

    #[test]
    fn what_does_not_fit_is_an_error_with_its_place() {
        let mut values = vec![0.5; RUN + 32];
        values[RUN + 3] = 7e4;
        let error = convert(&values, DType::F16).unwrap_err().to_string();
        assert!(error.contains("element 65539 is 70000"), "{error}");
        assert!(convert(&values, DType::BF16).is_ok());
        values[5] = f32::NAN;
        let error = convert(&values, DType::Block(BlockType::Q8_0)).unwrap_err().to_string();
        assert!(error.contains("element 5 is NaN"), "{error}");
        assert!(convert(&[1.0; 31], DType::Block(BlockType::Q8_0)).is_err());
        assert!(convert(&[1.0], DType::U32).is_err());
    }

    #[test]
    fn a_wide_value_rounds_or_is_refused() {
        let converter = Converter::new().unwrap();
        let wide = |value: f64| converter.convert("x", value.to_le_bytes().to_vec().into(), DType::F64, DType::F32);
        assert_eq!(wide(0.1).unwrap(), 0.1f32.to_le_bytes());
        assert!(wide(1e300).is_err());
        assert_eq!(wide(f64::INFINITY).unwrap(), f32::INFINITY.to_le_bytes());
    }
}
