//! A child process whose output is kept, watched for a line, and shown when the test fails.

use std::io::{self, BufRead, BufReader, PipeReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};

/// How long a line may be waited for: long for a busy machine, yet it ends. No test takes this long unless it fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many lines of output an error quotes.
const TAIL: usize = 40;

/// A running child. It is killed when dropped, so that no test leaves a server behind, whatever became of the test.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    output: Arc<Output>,
}

impl Process {
    /// Starts `command`, which is consumed because it holds the writing end of the pipe: while that is open, the end
    /// of the child would go unseen.
    pub(crate) fn start(name: &'static str, mut command: Command) -> anyhow::Result<Self> {
        let (reader, writer) = io::pipe().context("cannot make a pipe")?;
        let stderr = writer.try_clone().context("cannot share a pipe")?;
        let child = command
            // Never written to. It ends when this process does, by which the child may know.
            .stdin(Stdio::piped())
            .stdout(writer)
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        let output = Arc::new(Output::default());
        let sink = Arc::clone(&output);
        thread::spawn(move || sink.fill(reader));
        Ok(Self { name, child, output })
    }

    /// Blocks until `find` sees what it looks for in a line, old or new.
    ///
    /// # Errors
    /// When the child ends or two minutes pass without such a line; the error quotes the last lines.
    pub(crate) fn wait_for<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> anyhow::Result<T> {
        let lines = self
            .output
            .wait_while(|lines| !lines.iter().any(|line| find(line).is_some()));
        lines.text.iter().find_map(|line| find(line)).with_context(|| {
            let tail = lines.tail();
            let fate = if lines.ended { "ended" } else { "runs" };
            format!(
                "{} {fate}, and has not printed {what}; its output ends with:\n{tail}",
                self.name
            )
        })
    }

    /// Returns once this many lines say so, old ones counted.
    pub(crate) fn wait_for_lines(&self, text: &str, count: usize) -> anyhow::Result<()> {
        let enough = |lines: &[String]| lines.iter().filter(|line| line.contains(text)).count() >= count;
        let is_there = enough(&self.output.wait_while(|lines| !enough(lines)).text);
        ensure!(is_there, "{} has not printed {text:?} {count} times", self.name);
        Ok(())
    }

    /// How many lines so far say so.
    pub(crate) fn count_lines(&self, text: &str) -> usize {
        self.output
            .lock()
            .text
            .iter()
            .filter(|line| line.contains(text))
            .count()
    }

    /// Returns once the child has ended by itself.
    pub(crate) fn wait_for_end(&self) -> anyhow::Result<()> {
        let lines = self.output.wait_while(|_| true);
        ensure!(lines.ended, "{} does not end", self.name);
        Ok(())
    }

    /// Sends the child a signal.
    pub(crate) fn signal(&self, name: &str) -> anyhow::Result<()> {
        let kill = format!("kill -{name} {}", self.child.id());
        let status = Command::new("sh").arg("-c").arg(kill).status();
        ensure!(
            status.context("cannot run sh")?.success(),
            "cannot signal {}",
            self.name
        );
        Ok(())
    }

    /// The last lines.
    pub(crate) fn tail(&self) -> String {
        self.output.lock().tail()
    }

    /// Kills the child and waits until it is gone, and with it its sockets. Its output stays.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child
            .kill()
            .with_context(|| format!("cannot kill {}", self.name))?;
        self.child
            .wait()
            .with_context(|| format!("cannot wait for {}", self.name))?;
        Ok(())
    }
}

impl Drop for Process {
    #[expect(
        clippy::print_stderr,
        reason = "the test harness shows what was printed this way, and only on failure"
    )]
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
        if thread::panicking() {
            let lines = self.output.wait_while(|_| true);
            eprintln!("---- output of {} ----\n{}\n", self.name, lines.text.join("\n"));
        }
    }
}

/// What a child has printed so far, on either stream.
#[derive(Default)]
struct Output {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    text: Vec<String>,
    /// Both streams are closed: nothing can follow.
    ended: bool,
}

impl Lines {
    fn tail(&self) -> String {
        self.text[self.text.len().saturating_sub(TAIL)..].join("\n")
    }
}

impl Output {
    /// Reads to the end, so that the child never blocks on a full pipe.
    fn fill(&self, pipe: PipeReader) {
        for line in BufReader::new(pipe).split(b'\n') {
            let Ok(line) = line else { break };
            self.lock().text.push(String::from_utf8_lossy(&line).into_owned());
            self.changed.notify_all();
        }
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// Blocks while `pending` holds, the child may print more and patience lasts.
    fn wait_while(&self, pending: impl Fn(&[String]) -> bool) -> MutexGuard<'_, Lines> {
        self.changed
            .wait_timeout_while(self.lock(), PATIENCE, |lines| !lines.ended && pending(&lines.text))
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// A panic elsewhere does not make the lines worse, and they are wanted most then.
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
