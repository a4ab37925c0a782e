//! Starts the tasks that run as long as the daemon. A task that ends earlier has panicked: the
//! daemon then ends, and the service manager starts it again.

use std::future::Future;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Starts tasks.
#[derive(Clone, Debug)]
pub struct Tasks(mpsc::Sender<&'static str>);

/// Receives the name of a task that has ended.
#[derive(Debug)]
pub struct Ended(mpsc::Receiver<&'static str>);

/// Begins to watch tasks.
#[must_use]
pub fn watch() -> (Tasks, Ended) {
    let (ended, heard) = mpsc::channel(1);
    (Tasks(ended), Ended(heard))
}

impl Tasks {
    /// Starts a task with the name that reports its end. The returned handle ends after the task.
    pub fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let ended = self.0.clone();
        let task = tokio::spawn(task);
        tokio::spawn(async move {
            // The panic message is in the log.
            let _ = task.await;
            // The first one is enough.
            let _ = ended.try_send(name);
        })
    }
}

impl Ended {
    /// Waits for the first task that ends, and returns its name.
    pub async fn first(&mut self) -> &'static str {
        match self.0.recv().await {
            Some(name) => name,
            // No task can be started any more.
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn task_that_panics_is_noticed() {
        let (tasks, mut ended) = watch();
        tasks.spawn("one that goes on", std::future::pending());
        tasks.spawn("one that breaks", async { panic!("a test") });
        assert_eq!(ended.first().await, "one that breaks");
    }
}
