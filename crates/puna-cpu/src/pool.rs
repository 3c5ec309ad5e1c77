//! Threads: a team that stays awake while a step is held, and meets in well under a microsecond.
//!
//! The threads are rayon's, in a pool of this device's own. Between [`Pool::hold`]'s start and end they take tasks from one atomic
//! word, spin where there is none, and park after [`SPIN`]; so an op pays for a few cache lines that move, not for a wake-up. A
//! thread that the system does not run costs nothing: a run ends when its tasks are done, whoever took them.

use std::any::Any;
use std::cell::Cell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// How long a thread looks for work before it parks.
const SPIN: Duration = Duration::from_micros(50);

/// A device's threads.
pub(crate) struct Pool {
    threads: usize,
    rayon: Option<rayon::ThreadPool>,
    team: Arc<Team>,
}

impl Pool {
    /// `threads` threads that compute, the calling one included.
    ///
    /// Errors: the system gives no threads.
    pub(crate) fn new(threads: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        let threads = threads.max(1);
        let builder = rayon::ThreadPoolBuilder::new().num_threads(threads - 1).thread_name(|i| format!("puna-cpu-{}", i + 1));
        let rayon = if threads > 1 { Some(builder.build()?) } else { None };
        Ok(Self { threads, rayon, team: Arc::default() })
    }

    /// How many threads compute.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `f(i)` once for each `i` below `tasks`, on the threads that are free, and returns when all calls have.
    ///
    /// Results must not depend on who runs what. Inside a task, and while another thread holds the pool, the calls happen one after
    /// the other on the calling thread: so no lock that a caller has can keep this from ending.
    /// A panic in a task is passed on when no task runs any more; tasks that follow may or may not have run.
    pub(crate) fn run(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        let hold = if tasks > 1 { self.enter(Patience::Try) } else { None };
        match hold {
            Some(_hold) => {
                for first in (0..tasks).step_by(MOST_TASKS) {
                    self.team.run(first, (tasks - first).min(MOST_TASKS), f);
                }
            }
            None => (0..tasks).for_each(f),
        }
    }

    /// Calls `f` with the threads awake: runs inside it start at once. One user's hold at a time; a hold inside a hold, or inside a
    /// task, is the same as none.
    pub(crate) fn hold<R>(&self, f: impl FnOnce() -> R) -> R {
        let _hold = self.enter(Patience::Wait);
        f()
    }

    /// Makes the pool this thread's own until the result is dropped; `None` where the thread has to do alone.
    fn enter(&self, patience: Patience) -> Option<Hold<'_>> {
        let rayon = self.rayon.as_ref()?;
        if IN_TASK.get() {
            return None;
        }
        let team = &self.team;
        // Only this thread can have written its own mark.
        if team.owner.load(Relaxed) == mark() {
            return Some(Hold { team, turn: None });
        }
        let turn = match patience {
            // A thread that holds another pool may be waited for by this pool's holder.
            Patience::Wait if HOLDS.get() == 0 => team.turn.lock().unwrap_or_else(PoisonError::into_inner),
            _ => match team.turn.try_lock() {
                Ok(turn) => turn,
                Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
                Err(TryLockError::WouldBlock) => return None,
            },
        };
        team.owner.store(mark(), Relaxed);
        HOLDS.set(HOLDS.get() + 1);
        let mut attendance = team.attendance();
        attendance.held = true;
        let absent = self.threads - 1 - attendance.present;
        attendance.present += absent;
        drop(attendance);
        for _ in 0..absent {
            let team = team.clone();
            rayon.spawn(move || team.attend());
        }
        Some(Hold { team, turn: Some(turn) })
    }
}

/// Whether to wait for another thread's hold to end.
enum Patience {
    Wait,
    Try,
}

thread_local! {
    /// Whether the thread runs a task.
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
    /// How many pools the thread holds.
    static HOLDS: Cell<usize> = const { Cell::new(0) };
}

/// A number that no other living thread has, and that is never 0.
fn mark() -> usize {
    HOLDS.with(|holds| std::ptr::from_ref(holds).addr())
}

/// The pool is the thread's own as long as this lives.
struct Hold<'a> {
    team: &'a Team,
    /// `None` in a hold inside a hold.
    turn: Option<MutexGuard<'a, ()>>,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if self.turn.is_some() {
            HOLDS.set(HOLDS.get() - 1);
            self.team.owner.store(0, Relaxed);
            self.team.attendance().held = false;
            self.team.wake(usize::MAX);
        }
    }
}

/// The most tasks that a ticket counts.
const MOST_TASKS: usize = (1 << TASK_BITS) - 1;
const TASK_BITS: u32 = 24;

/// What the threads of a pool share.
///
/// The ticket holds the number of the current job in its upper bits and, in the lower 24, how many of its tasks nobody has taken.
/// A task is taken by counting the ticket down. A job cannot end while a task that was taken is not reported in `done`, so whoever
/// took one may use the job; and as the number changes with each job, a ticket read in an earlier one takes nothing.
#[derive(Default)]
struct Team {
    ticket: Line<AtomicU64>,
    job: AtomicPtr<Job<'static>>,
    /// How many tasks of the current job other threads than the holder have run.
    done: Line<AtomicUsize>,
    /// Whether the holder is parked until `done` moves.
    waits: AtomicBool,
    /// How many threads are parked.
    parked: AtomicUsize,
    /// The mark of the thread that holds the pool; 0 is none.
    owner: AtomicUsize,
    turn: Mutex<()>,
    attendance: Mutex<Attendance>,
    work: Condvar,
    finished: Condvar,
}

/// Keeps what threads write often on cache lines of its own (two: they are fetched in pairs).
#[derive(Default)]
#[repr(align(128))]
struct Line<T>(T);

#[derive(Default)]
struct Attendance {
    held: bool,
    /// How many of rayon's threads look for tasks, or are about to.
    present: usize,
}

/// A run as its tasks see it.
struct Job<'a> {
    f: &'a (dyn Fn(usize) + Sync),
    first: usize,
    tasks: usize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Job<'_> {
    /// Runs the task that left `remaining` tasks before it was taken.
    fn call(&self, remaining: usize) {
        let i = self.first + self.tasks - remaining;
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| (self.f)(i))) {
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
        }
    }
}

fn untaken(ticket: u64) -> usize {
    ticket as usize & MOST_TASKS
}

impl Team {
    /// The holder's side of a run.
    fn run(&self, first: usize, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        let job = Job { f, first, tasks, panic: Mutex::new(None) };
        self.done.0.store(0, Relaxed);
        self.job.store((&raw const job).cast_mut().cast(), Relaxed);
        let number = (self.ticket.0.load(Relaxed) >> TASK_BITS).wrapping_add(1);
        // Publishes the job and the zero. Sequentially consistent, as is the parkers' count: either `wake` sees the parker, or the
        // parker sees the ticket.
        self.ticket.0.store(number << TASK_BITS | tasks as u64, SeqCst);
        self.wake(tasks - 1);

        IN_TASK.set(true);
        let mut own = 0;
        while let Some(remaining) = self.take() {
            job.call(remaining);
            own += 1;
        }
        IN_TASK.set(false);
        self.wait_for(tasks - own);
        if let Some(payload) = job.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(payload);
        }
    }

    /// Takes a task of the current job.
    fn take(&self) -> Option<usize> {
        let mut ticket = self.ticket.0.load(Acquire);
        loop {
            if untaken(ticket) == 0 {
                return None;
            }
            match self.ticket.0.compare_exchange_weak(ticket, ticket - 1, AcqRel, Acquire) {
                Ok(_) => return Some(untaken(ticket)),
                Err(now) => ticket = now,
            }
        }
    }

    /// Waits until other threads have reported `tasks` tasks.
    fn wait_for(&self, tasks: usize) {
        if spin_until(|| self.done.0.load(Acquire) == tasks) {
            return;
        }
        let mut attendance = self.attendance();
        self.waits.store(true, SeqCst);
        while self.done.0.load(SeqCst) != tasks {
            attendance = self.finished.wait(attendance).unwrap_or_else(PoisonError::into_inner);
        }
        self.waits.store(false, Relaxed);
    }

    /// A rayon thread's side of all runs, until nobody holds the pool.
    fn attend(&self) {
        IN_TASK.set(true);
        loop {
            let found = spin_until(|| self.help());
            if !found && !self.park() {
                break;
            }
        }
        IN_TASK.set(false);
    }

    /// Runs tasks while there are any; whether there was one.
    fn help(&self) -> bool {
        let mut own = 0;
        while let Some(remaining) = self.take() {
            // SAFETY: the holder stored the pointer before the ticket that was counted down, and will neither replace it nor drop
            // the job before the task just taken is reported below. While tasks are unreported no other job can begin, so all of
            // this loop's tasks are of one.
            let job = unsafe { &*self.job.load(Relaxed) };
            job.call(remaining);
            own += 1;
        }
        if own > 0 {
            self.done.0.fetch_add(own, SeqCst);
            if self.waits.load(SeqCst) {
                drop(self.attendance());
                self.finished.notify_one();
            }
        }
        own > 0
    }

    /// Sleeps until there is a task. False where nobody holds the pool: then the thread has left.
    fn park(&self) -> bool {
        let mut attendance = self.attendance();
        self.parked.fetch_add(1, SeqCst);
        while untaken(self.ticket.0.load(SeqCst)) == 0 && attendance.held {
            attendance = self.work.wait(attendance).unwrap_or_else(PoisonError::into_inner);
        }
        self.parked.fetch_sub(1, SeqCst);
        let stays = attendance.held;
        attendance.present -= usize::from(!stays);
        stays
    }

    /// Wakes up to `most` threads that are parked.
    fn wake(&self, most: usize) {
        let parked = self.parked.load(SeqCst);
        if parked > 0 {
            // Whoever has counted itself is asleep once the lock is free.
            drop(self.attendance());
            (0..parked.min(most)).for_each(|_| self.work.notify_one());
        }
    }

    fn attendance(&self) -> MutexGuard<'_, Attendance> {
        self.attendance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tries for [`SPIN`]; whether it came true.
fn spin_until(mut done: impl FnMut() -> bool) -> bool {
    // The clock is read seldom, and not at all where the wait is short.
    const TRIES: usize = 64;
    let mut start = None;
    loop {
        for _ in 0..TRIES {
            if done() {
                return true;
            }
            spin_loop();
        }
        if start.get_or_insert_with(Instant::now).elapsed() >= SPIN {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// Runs every task of `tasks` and says how often each ran.
    fn counts(pool: &Pool, tasks: usize) -> Vec<u32> {
        let counts: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
        pool.run(tasks, &|i| {
            counts[i].fetch_add(1, Relaxed);
        });
        counts.into_iter().map(AtomicU32::into_inner).collect()
    }

    #[test]
    fn each_task_runs_once() {
        for threads in 1..=5 {
            let pool = Pool::new(threads).unwrap();
            assert_eq!(pool.threads(), threads);
            for tasks in [0, 1, 2, 3, 7, 64, 1000] {
                assert_eq!(counts(&pool, tasks), vec![1; tasks], "{threads} threads");
                assert_eq!(pool.hold(|| counts(&pool, tasks)), vec![1; tasks], "{threads} threads, held");
            }
        }
    }

    #[test]
    fn ten_thousand_tiny_runs_in_a_hold() {
        for threads in [1, 2, 4] {
            let pool = Pool::new(threads).unwrap();
            let mut sums = [0usize; 3];
            pool.hold(|| {
                for round in 0..10_000 {
                    let parts = [const { AtomicUsize::new(0) }; 3];
                    pool.run(3, &|i| parts[i].store(i + round, Relaxed));
                    sums.iter_mut().zip(&parts).for_each(|(sum, part)| *sum += part.load(Relaxed));
                }
            });
            let base = 10_000 * 9_999 / 2;
            assert_eq!(sums, [base, base + 10_000, base + 20_000]);
        }
    }

    #[test]
    fn more_tasks_than_a_ticket_counts() {
        let pool = Pool::new(2).unwrap();
        let (count, last) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let tasks = MOST_TASKS + 5;
        pool.run(tasks, &|i| {
            if i >= MOST_TASKS {
                count.fetch_add(1, Relaxed);
                last.fetch_max(i, Relaxed);
            }
        });
        assert_eq!((count.into_inner(), last.into_inner()), (5, tasks - 1));
    }

    #[test]
    fn threads_that_parked_wake_up() {
        let pool = Pool::new(3).unwrap();
        pool.hold(|| {
            for _ in 0..20 {
                std::thread::sleep(SPIN * 10);
                // Each task waits for the others, so each needs a thread of its own.
                let arrived = AtomicUsize::new(0);
                pool.run(3, &|_| {
                    arrived.fetch_add(1, SeqCst);
                    let start = Instant::now();
                    while arrived.load(SeqCst) < 3 {
                        assert!(start.elapsed() < Duration::from_secs(30), "a parked thread was not woken");
                        std::thread::yield_now();
                    }
                });
            }
        });
    }

    #[test]
    fn the_holder_waits_for_a_long_task() {
        let pool = Pool::new(2).unwrap();
        let ran = AtomicUsize::new(0);
        pool.run(2, &|_| {
            std::thread::sleep(SPIN * 20);
            ran.fetch_add(1, Relaxed);
        });
        assert_eq!(ran.into_inner(), 2);
    }

    #[test]
    fn a_panic_is_passed_on_when_no_task_runs() {
        for threads in [1, 2, 4] {
            let pool = Pool::new(threads).unwrap();
            let (begun, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(20, &|i| {
                    begun.fetch_add(1, SeqCst);
                    assert!(i != 7, "task {i} fails");
                    std::thread::sleep(Duration::from_micros(200));
                    ended.fetch_add(1, SeqCst);
                });
            }));
            let message = result.unwrap_err().downcast::<String>().unwrap();
            assert_eq!(*message, "task 7 fails");
            assert_eq!(begun.into_inner(), ended.into_inner() + 1, "all but the failing one have ended");
            assert_eq!(counts(&pool, 50), vec![1; 50], "the pool works on");
        }
    }

    #[test]
    fn a_panic_ends_a_hold() {
        let pool = Pool::new(2).unwrap();
        let result = catch_unwind(AssertUnwindSafe(|| pool.hold(|| panic!("inside"))));
        assert!(result.is_err());
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(pool.hold(|| counts(&pool, 9)), vec![1; 9]));
        });
    }

    #[test]
    fn holds_and_runs_nest() {
        let pool = Pool::new(3).unwrap();
        let other = Pool::new(2).unwrap();
        let count = AtomicUsize::new(0);
        pool.hold(|| {
            pool.hold(|| {
                other.hold(|| {
                    pool.run(4, &|_| {
                        pool.hold(|| {
                            pool.run(5, &|_| {
                                other.run(2, &|_| {
                                    count.fetch_add(1, Relaxed);
                                });
                            });
                        });
                    });
                });
            });
            assert_eq!(counts(&pool, 30), vec![1; 30]);
        });
        assert_eq!(count.into_inner(), 4 * 5 * 2);
    }

    /// What a held run costs; for the eye: `cargo test --release -p puna-cpu held_runs -- --ignored --nocapture`.
    #[test]
    #[ignore = "prints times"]
    fn held_runs_cost() {
        for threads in [1, 2] {
            let pool = Pool::new(threads).unwrap();
            let rounds = 200_000;
            let seconds = |f: &mut dyn FnMut()| {
                let start = Instant::now();
                f();
                start.elapsed().as_nanos() as f64 / f64::from(rounds)
            };
            let empty = pool.hold(|| seconds(&mut || (0..rounds).for_each(|_| pool.run(threads, &|_| ()))));
            // Each task waits until the others have begun: a full meeting of all threads.
            let meeting = pool.hold(|| {
                seconds(&mut || {
                    for _ in 0..rounds {
                        let arrived = AtomicUsize::new(0);
                        pool.run(threads, &|_| {
                            arrived.fetch_add(1, AcqRel);
                            while arrived.load(Acquire) < threads {
                                spin_loop();
                            }
                        });
                    }
                })
            });
            println!("{threads} threads: empty run {empty:.0} ns, meeting of all {meeting:.0} ns");
        }
    }

    #[test]
    fn concurrent_users_take_turns() {
        let (a, b) = (Pool::new(3).unwrap(), Pool::new(2).unwrap());
        let steps = Mutex::new(0);
        std::thread::scope(|scope| {
            for user in 0..6 {
                let (a, b, steps) = (&a, &b, &steps);
                scope.spawn(move || {
                    let (first, second) = if user % 2 == 0 { (a, b) } else { (b, a) };
                    for round in 0..200 {
                        let tasks = round % 11;
                        assert_eq!(first.hold(|| counts(first, tasks)), vec![1; tasks]);
                        assert_eq!(counts(second, tasks), vec![1; tasks]);
                        first.hold(|| second.hold(|| assert_eq!(counts(second, tasks), vec![1; tasks])));
                        // A lock that a holder may want as well.
                        let mut count = steps.lock().unwrap();
                        second.run(3, &|_| ());
                        *count += 1;
                        drop(count);
                        second.hold(|| assert!(*steps.lock().unwrap() > 0));
                    }
                });
            }
        });
        assert_eq!(*steps.lock().unwrap(), 6 * 200);
    }
}
