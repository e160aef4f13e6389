//! Changes as lines of JSON.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::thread::JoinHandle;

use rowdelta::engine::changes::Change;
use tokio::sync::{mpsc, watch};

/// Changes that wait for being written. Beyond it the run waits.
const WAITING_MAX: usize = 1_000;

/// Writes a line for each change, on a thread of its own.
pub struct Lines {
    listener: mpsc::Sender<Change>,
    writer: JoinHandle<Result<(), String>>,
    failed: watch::Receiver<bool>,
}

impl Lines {
    /// To a file, which is made anew; `-`: to standard output.
    ///
    /// # Errors
    /// The file cannot be made, in words.
    pub fn open(file: &Path) -> Result<Self, String> {
        let (to, name): (Box<dyn Write + Send>, _) = match file == Path::new("-") {
            true => (Box::new(std::io::stdout()), "standard output".to_owned()),
            false => {
                let made = File::create(file).map_err(|error| format!("{}: {error}", file.display()))?;
                (Box::new(made), file.display().to_string())
            }
        };
        let (listener, changes) = mpsc::channel(WAITING_MAX);
        let (tell, failed) = watch::channel(false);
        let writer = std::thread::spawn(move || {
            let written = write(BufWriter::new(to), changes);
            written.map_err(|error| {
                tell.send_replace(true);
                format!("changes could not be written to {name}: {error}")
            })
        });
        Ok(Lines { listener, writer, failed })
    }

    /// What an engine tells changes to.
    pub fn listener(&self) -> mpsc::Sender<Change> {
        self.listener.clone()
    }

    /// Resolves when nothing more can be written.
    pub async fn failed(&self) {
        if self.failed.clone().wait_for(|failed| *failed).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until all is written. Every engine that tells changes must be gone.
    ///
    /// # Errors
    /// What kept lines from being written, in words.
    pub async fn finish(self) -> Result<(), String> {
        drop(self.listener);
        let written = tokio::task::spawn_blocking(|| self.writer.join()).await;
        match written {
            Ok(Ok(written)) => written,
            _ => Err("the writer of changes failed".into()),
        }
    }
}

/// What waits is written in one go, and flushed when nothing waits: whoever reads lags by nothing.
fn write(mut to: BufWriter<impl Write>, mut changes: mpsc::Receiver<Change>) -> std::io::Result<()> {
    while let Some(change) = changes.blocking_recv() {
        let mut next = Some(change);
        while let Some(change) = next {
            serde_json::to_writer(&mut to, &change)?;
            to.write_all(b"\n")?;
            next = changes.try_recv().ok();
        }
        to.flush()?;
    }
    Ok(())
}
