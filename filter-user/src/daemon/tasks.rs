//! Tasks that go on as long as the daemon. One that ends earlier has panicked, and nobody does its
//! work any more: the daemon ends then, and the service manager starts it again.

use std::future::Future;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Starts tasks.
#[derive(Clone, Debug)]
pub struct Tasks(mpsc::Sender<&'static str>);

/// Hears of tasks that have ended.
#[derive(Debug)]
pub struct Ended(mpsc::Receiver<&'static str>);

/// Begins to watch tasks.
#[must_use]
pub fn watch() -> (Tasks, Ended) {
    let (ended, heard) = mpsc::channel(1);
    (Tasks(ended), Ended(heard))
}

impl Tasks {
    /// Starts a task; its end is told by this name. What is handed out ends after it.
    pub fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let ended = self.0.clone();
        let task = tokio::spawn(task);
        tokio::spawn(async move {
            // What a panic said is in the log.
            let _ = task.await;
            // The first one is enough.
            let _ = ended.try_send(name);
        })
    }
}

impl Ended {
    /// The name of the first task that has ended.
    pub async fn first(&mut self) -> &'static str {
        match self.0.recv().await {
            Some(name) => name,
            // Nobody starts tasks any more.
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_noticed() {
        let (tasks, mut ended) = watch();
        tasks.spawn("one that goes on", std::future::pending());
        tasks.spawn("one that breaks", async { panic!("a test") });
        assert_eq!(ended.first().await, "one that breaks");
    }
}
