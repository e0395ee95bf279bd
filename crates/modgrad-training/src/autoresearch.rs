//! The summary block that ends a run: the lines that scripts grep for.

use std::fmt;

/// Where values start: labels are padded to this column.
const COLUMN: usize = 18;

/// What was trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Bytes of text.
    Language,
    /// Routes through mazes.
    Mazes,
    /// The same, by the model of eight regions.
    MazesBrain,
}

impl fmt::Display for Task {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Task::Language => "language",
            Task::Mazes => "mazes",
            Task::MazesBrain => "mazes-brain",
        })
    }
}

/// The results of a run.
///
/// Its `Display` is the block, each line ended by a line feed.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Bits per byte, or 1 − first-step accuracy for mazes; lower is better.
    pub val_bpb: f64,
    /// Wall-clock time of training alone.
    pub training_seconds: f64,
    /// Wall-clock time from start to here.
    pub total_seconds: f64,
    /// Most memory held on the device, in MiB; 0 on a CPU.
    pub peak_vram_mb: f64,
    /// Floating-point rate reached, in percent of the machine's measured peak.
    pub mfu_percent: f64,
    /// Tokens trained on.
    pub total_tokens: u64,
    /// Updates made.
    pub num_steps: u64,
    /// Trainable parameters.
    pub num_params: u64,
    /// Most memory held on the host, in MiB: see [`peak_rss_mb`].
    pub peak_rss_mb: f64,
    /// The device by name.
    pub device: String,
    /// Threads used.
    pub threads: usize,
    /// Seed of the run.
    pub seed: u64,
    /// What was trained.
    pub task: Task,
    /// Targets that `val_bpb` is the mean of.
    pub n_targets: u64,
    /// The model's context.
    pub context: usize,
}

/// A figure of a summary that is no result.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("`{label}` is {value}: a run without a finite result has no summary")]
pub struct SummaryError {
    /// Which figure.
    pub label: &'static str,
    /// What it is.
    pub value: f64,
}

impl Summary {
    /// The block, if every figure is finite and not below zero.
    pub fn render(&self) -> Result<String, SummaryError> {
        for (label, value) in [
            ("val_bpb", self.val_bpb),
            ("training_seconds", self.training_seconds),
            ("total_seconds", self.total_seconds),
            ("peak_vram_mb", self.peak_vram_mb),
            ("mfu_percent", self.mfu_percent),
            ("peak_rss_mb", self.peak_rss_mb),
        ] {
            if !value.is_finite() || value < 0.0 {
                return Err(SummaryError { label, value });
            }
        }
        Ok(self.to_string())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name may not start a line of its own.
        let device: String = self.device.chars().filter(|c| !c.is_control()).collect();
        let millions = |count: u64| format!("{:.1}", count as f64 / 1e6);
        let fixed = |value: f64, places: usize| format!("{:.places$}", value + 0.0);
        writeln!(out, "---")?;
        for (label, value) in [
            ("val_bpb", fixed(self.val_bpb, 6)),
            ("training_seconds", fixed(self.training_seconds, 1)),
            ("total_seconds", fixed(self.total_seconds, 1)),
            ("peak_vram_mb", fixed(self.peak_vram_mb, 1)),
            ("mfu_percent", fixed(self.mfu_percent, 2)),
            ("total_tokens_m", millions(self.total_tokens)),
            ("num_steps", self.num_steps.to_string()),
            ("num_params_m", millions(self.num_params)),
            ("peak_rss_mb", fixed(self.peak_rss_mb, 1)),
            ("device", device),
            ("threads", self.threads.to_string()),
            ("seed", self.seed.to_string()),
            ("task", self.task.to_string()),
            ("n_targets", self.n_targets.to_string()),
            ("context", self.context.to_string()),
        ] {
            writeln!(out, "{:<COLUMN$}{value}", format!("{label}:"))?;
        }
        Ok(())
    }
}

/// The most memory this process has held, in MiB; 0 where the system does not
/// say.
///
/// Read from VmHWM: `ru_maxrss` of a child starts from its parent's peak.
pub fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    peak_in_status(&status).unwrap_or(0.0)
}

fn peak_in_status(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Summary {
        Summary {
            val_bpb: 0.9979,
            training_seconds: 300.1,
            total_seconds: 325.9,
            peak_vram_mb: 45060.2,
            mfu_percent: 39.8,
            total_tokens: 499_600_000,
            num_steps: 953,
            num_params: 50_300_000,
            peak_rss_mb: 812.25,
            device: "cpu avx512".into(),
            threads: 2,
            seed: 42,
            task: Task::Language,
            n_targets: 262_143,
            context: 128,
        }
    }

    #[test]
    fn the_block_is_exactly_this() {
        let expected = "\
---
val_bpb:          0.997900
training_seconds: 300.1
total_seconds:    325.9
peak_vram_mb:     45060.2
mfu_percent:      39.80
total_tokens_m:   499.6
num_steps:        953
num_params_m:     50.3
peak_rss_mb:      812.2
device:           cpu avx512
threads:          2
seed:             42
task:             language
n_targets:        262143
context:          128
";
        assert_eq!(example().render().unwrap(), expected);
    }

    #[test]
    fn small_figures_keep_their_form() {
        let small = Summary {
            peak_vram_mb: 0.0,
            mfu_percent: -0.0,
            total_tokens: 49_999,
            num_params: 0,
            task: Task::MazesBrain,
            device: "a\nval_bpb: 0.1\u{7f}".into(),
            ..example()
        };
        let block = small.render().unwrap();
        let line = |label: &str| block.lines().find(|line| line.starts_with(label)).unwrap();
        assert_eq!(line("peak_vram_mb:"), "peak_vram_mb:     0.0");
        assert_eq!(line("mfu_percent:"), "mfu_percent:      0.00");
        assert_eq!(line("total_tokens_m:"), "total_tokens_m:   0.0");
        assert_eq!(line("task:"), "task:             mazes-brain");
        assert_eq!(line("device:"), "device:           aval_bpb: 0.1");
        assert_eq!(block.lines().filter(|line| line.starts_with("val_bpb:")).count(), 1);
    }

    #[test]
    fn a_run_without_a_result_has_no_summary() {
        for value in [f64::NAN, f64::INFINITY, -1.0] {
            let error = Summary { val_bpb: value, ..example() }.render().unwrap_err();
            assert_eq!(error.label, "val_bpb");
        }
    }

    #[test]
    fn the_peak_is_read_from_the_line_of_that_name() {
        let status = "Name:\tx\nVmPeak:\t  999 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(peak_in_status(status), Some(2.0));
        assert_eq!(peak_in_status("VmHWM: many kB"), None);
        assert_eq!(peak_in_status(""), None);
        if std::path::Path::new("/proc/self/status").exists() {
            assert!(peak_rss_mb() > 0.1);
        }
    }
}
