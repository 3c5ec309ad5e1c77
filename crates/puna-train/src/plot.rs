//! A picture of a run's loss, from its `metrics.jsonl`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::path::Path;

use plotters::prelude::*;
use puna_llama::weights::write::atomically;
use serde_json::Value;

use crate::error::{Error, Kind, Result};

/// A line of metrics has some two hundred bytes.
const MOST_LINE_BYTES: u64 = 1 << 12;
/// How many points a curve has at most: about as many as the picture has columns.
const MOST_POINTS: usize = 800;
const SIZE: (u32, u32) = (960, 540);

/// Draws the loss over the steps, and the loss of held-out data where there is one, as SVG. Where there are more steps than columns, a
/// point is the mean of a few neighbours. The file appears whole or not at all.
///
/// `metrics`: a run's `metrics.jsonl`, finished or not.
///
/// Errors: metrics without a step; what the operating system says.
pub fn loss_curve(metrics: impl AsRef<Path>, svg: impl AsRef<Path>) -> Result<()> {
    let (metrics, path) = (metrics.as_ref(), svg.as_ref());
    let curves = Curves::read(metrics)?;
    if curves.trained.is_empty() {
        return Err(Error::new(Kind::Empty, metrics.display().to_string(), "no step has been taken yet; one would be drawn"));
    }
    let mut svg = String::new();
    draw(&curves, &mut svg)
        .map_err(|e| Error::new(Kind::Argument, path.display().to_string(), format!("cannot be drawn: {e}")))?;
    let failed = |e| puna_llama::Error::new(puna_llama::Kind::Io, path.display().to_string(), format!("cannot write it: {e}"));
    Ok(atomically(path, |to| to.write_all(svg.as_bytes()).map_err(failed))?)
}

/// Losses by step.
#[derive(Debug, Default)]
struct Curves {
    trained: Vec<(f64, f64)>,
    held_out: Vec<(f64, f64)>,
}

impl Curves {
    fn read(path: &Path) -> Result<Self> {
        let mut reader = BufReader::new(File::open(path).map_err(|e| Error::io(path, "open", e))?);
        let mut curves = Self::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut piece = reader.by_ref().take(MOST_LINE_BYTES);
            if piece.read_until(b'\n', &mut line).map_err(|e| Error::io(path, "read", e))? == 0 {
                break;
            }
            // A run that is going on may be writing its last line.
            let Ok(value) = serde_json::from_slice::<Value>(&line) else { continue };
            let Some(step) = value["step"].as_f64() else { continue };
            for (name, curve) in [("loss", &mut curves.trained), ("held_out", &mut curves.held_out)] {
                curve.extend(value[name].as_f64().map(|loss| (step, loss)));
            }
        }
        curves.trained = thinned(&curves.trained);
        Ok(curves)
    }

    /// What both axes have to show.
    fn ranges(&self) -> (Range<f64>, Range<f64>) {
        let points = || self.trained.iter().chain(&self.held_out);
        let span = |values: &mut dyn Iterator<Item = f64>| {
            let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
            (low, high.max(low + 1e-3))
        };
        let (first, last) = span(&mut points().map(|(step, _)| *step));
        let (low, high) = span(&mut points().map(|(_, loss)| *loss));
        let margin = 0.05 * (high - low);
        (first..last.max(first + 1.0), low - margin..high + margin)
    }
}

/// Means of neighbours, where there are more points than a picture shows.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mean = |run: &[(f64, f64)]| {
        let sum = run.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / run.len() as f64, sum.1 / run.len() as f64)
    };
    points.chunks(points.len().div_ceil(MOST_POINTS).max(1)).map(mean).collect()
}

fn draw(curves: &Curves, svg: &mut String) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let (steps, losses) = curves.ranges();
    let mut chart =
        ChartBuilder::on(&area).margin(16).x_label_area_size(44).y_label_area_size(64).build_cartesian_2d(steps, losses)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("step")
        .y_desc("loss")
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_label_formatter(&|loss| format!("{loss:.2}"))
        .draw()?;
    let blue = RGBColor(31, 119, 180);
    chart
        .draw_series(LineSeries::new(curves.trained.iter().copied(), blue.stroke_width(2)))?
        .label("training")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], blue.stroke_width(2)));
    if !curves.held_out.is_empty() {
        let orange = RGBColor(255, 127, 14);
        chart
            .draw_series(LineSeries::new(curves.held_out.iter().copied(), orange.stroke_width(2)).point_size(3))?
            .label("held out")
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], orange.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE)
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws lines of metrics and gives the picture.
    fn drawn(lines: &[String]) -> Result<String> {
        let folder = tempfile::tempdir().unwrap();
        let (metrics, svg) = (folder.path().join("metrics.jsonl"), folder.path().join("loss.svg"));
        std::fs::write(&metrics, lines.concat()).unwrap();
        loss_curve(&metrics, &svg)?;
        Ok(std::fs::read_to_string(svg).unwrap())
    }

    fn steps(count: u64) -> Vec<String> {
        (1..=count).map(|step| format!("{{\"step\":{step},\"loss\":{}}}\n", 5.0 / step as f64)).collect()
    }

    /// The points of the curves, in pixels.
    fn curves(svg: &str) -> Vec<Vec<(f64, f64)>> {
        let long = svg.lines().filter(|line| line.starts_with("<polyline") && line.contains("stroke-width=\"2\""));
        let points = long.map(|line| line.split("points=\"").nth(1).unwrap().split('"').next().unwrap());
        let point = |pair: &str| pair.split_once(',').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap())).unwrap();
        points.map(|points| points.split_whitespace().map(point).collect()).collect()
    }

    #[test]
    fn each_step_is_a_point_and_a_falling_loss_falls() {
        let mut lines = steps(50);
        lines.push("{\"step\":25,\"held_out\":4.0}\n".into());
        lines.push("{\"step\":50,\"held_out\":3.0}\n".into());
        // A line that is being written, and one that says nothing.
        lines.push("{\"step\":51,\"lo".into());
        let svg = drawn(&lines).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for word in ["step", "loss", "training", "held out"] {
            assert!(svg.lines().any(|line| line.trim() == word), "{word}");
        }
        let curves = curves(&svg);
        assert_eq!((curves[0].len(), curves[1].len()), (50, 2));
        // Down is larger.
        assert!(curves[0].windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{curves:?}");
        assert!(curves[1][0].1 < curves[1][1].1);
    }

    #[test]
    fn many_steps_become_few_points_within_the_picture() {
        let svg = drawn(&steps(100_000)).unwrap();
        let curve = curves(&svg).remove(0);
        assert_eq!(curve.len(), MOST_POINTS);
        assert!(curve.iter().all(|(x, y)| (0.0..960.0).contains(x) && (0.0..540.0).contains(y)));
        assert!(svg.len() < 100_000, "{}", svg.len());
        // A single step, and losses that are all the same, are drawn too.
        drawn(&steps(1)).unwrap();
        drawn(&["{\"step\":1,\"loss\":2}\n".into(), "{\"step\":2,\"loss\":2}\n".into()]).unwrap();
    }

    #[test]
    fn metrics_without_a_step_are_refused() {
        let long = format!("{{\"step\":1,\"loss\":\"{}\"}}\n", "x".repeat(1 << 16));
        for lines in [vec![], vec!["{\"step\":1,\"held_out\":2}\n".to_owned()], vec![long], vec!["\u{0}\u{1}".into()]] {
            assert_eq!(drawn(&lines).unwrap_err().kind(), Kind::Empty);
        }
        assert_eq!(loss_curve("no such file", "x.svg").unwrap_err().kind(), Kind::Io);
    }
}
