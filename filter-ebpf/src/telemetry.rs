//! Counters, events and evidence: the reports to user space about a packet.

use aya_ebpf::maps::RingBuf;
use filter_common::abi::{
    CALL_ID_EVENT_MAX, EVENT_REPEATED, EVIDENCE_MAX, Event, EventEntry, EventStats, Evidence,
    EvidenceStats, TRUNKS_MAX, UNREAD_MAX, Verdict,
};
use filter_common::judge::Scratch;
use filter_common::reason::{REASON_NUMBERS, Reason};

use crate::maps;
use crate::packet::{Frame, is_replay};

/// Of the pass events above the limit, one in this many is still sent.
const SAMPLE: u64 = 64;

/// Counts a packet and, when it is a new attempt, reports it.
#[inline(always)]
pub fn report(frame: impl Frame, scratch: &Scratch, reason: Reason, pass_events_per_second: u32) {
    let event = &scratch.event;
    count(event.trunk as u32, reason);
    if is_replay()
        && let Some(last) = maps::REPLAY_EVENT.get_ptr_mut(0)
    {
        // SAFETY: an array element of this type; replays run one at a time.
        unsafe { *last = *event };
    }
    if !reason.is_attempt() || event.flags & EVENT_REPEATED != 0 {
        return;
    }
    let Some(stats) = maps::EVENT_STATS.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: a per-CPU element, and nothing else runs on this CPU meanwhile.
    let stats = unsafe { &mut *stats };
    // A grant is never thinned and never after passes: a person sees it at once.
    if event.verdict != Verdict::Pass as u8 || reason == Reason::RedialGrant {
        if !send(frame, &maps::EVENTS_REFUSED, event, 0) {
            stats.refused_lost += 1;
        }
        keep(frame, event);
    } else if is_thinned(stats, event.time, pass_events_per_second) {
        stats.passed_thinned += 1;
    } else if !send(frame, &maps::EVENTS_PASSED, event, scratch.text(reason)) {
        stats.passed_lost += 1;
    }
}

#[inline(always)]
fn count(trunk: u32, reason: Reason) {
    let trunk = if trunk < TRUNKS_MAX { trunk } else { 0 };
    if let Some(counter) = maps::COUNTERS.get_ptr_mut(trunk * REASON_NUMBERS + reason as u32) {
        // SAFETY: a per-CPU element, and nothing else runs on this CPU meanwhile.
        unsafe { *counter += 1 };
    }
}

#[inline(always)]
fn is_thinned(stats: &mut EventStats, time: u64, limit: u32) -> bool {
    let second = time / 1_000_000_000;
    if stats.second != second {
        stats.second = second;
        stats.passed_in_second = 0;
    }
    stats.passed_in_second += 1;
    stats.passed_in_second > limit as u64 && !stats.passed_in_second.is_multiple_of(SAMPLE)
}

/// Sends an event to a ring, with the bytes from `unread` on where that is not 0. `false`: it has no room.
#[inline(never)]
fn send(frame: impl Frame, ring: &RingBuf, event: &Event, unread: usize) -> bool {
    let Some(mut entry) = ring.reserve::<EventEntry>(0) else {
        return false;
    };
    let entry_ptr = entry.as_mut_ptr();
    let len = usize::from(event.call_id_len).min(CALL_ID_EVENT_MAX);
    // SAFETY: as much room as an entry needs was reserved.
    unsafe {
        (&raw mut (*entry_ptr).event).write(*event);
        let room = (&raw mut (*entry_ptr).call_id).cast();
        let offset = usize::from(event.call_id_offset);
        if len == 0 || !frame.copy::<CALL_ID_EVENT_MAX>(offset, room, len) {
            (&raw mut (*entry_ptr).event.call_id_len).write(0);
        }
        let room = (&raw mut (*entry_ptr).unread).cast();
        let len = frame.frame_len().saturating_sub(unread).min(UNREAD_MAX);
        let is_copied = unread != 0 && len != 0 && frame.copy::<UNREAD_MAX>(unread, room, len);
        (&raw mut (*entry_ptr).unread_len).write(if is_copied { len as u64 } else { 0 });
    }
    entry.submit(0);
    true
}

/// Sends the frame of a refused attempt to its ring, if evidence is on and below the limit. A frame that
/// finds no room is lost, but its event is not.
#[inline(never)]
fn keep(frame: impl Frame, event: &Event) -> u32 {
    let wanted = maps::EVIDENCE_PER_SECOND.get(0).copied().unwrap_or(0);
    if wanted == 0 || event.verdict == Verdict::Pass as u8 {
        return 0;
    }
    let Some(stats) = maps::EVIDENCE_STATS.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: a per-CPU element, and nothing else runs on this CPU meanwhile.
    let stats = unsafe { &mut *stats };
    if is_above(stats, event.time, wanted) {
        stats.limited += 1;
    } else if send_frame(frame, event) {
        stats.kept += 1;
    } else {
        stats.lost += 1;
    }
    0
}

#[inline(always)]
fn is_above(stats: &mut EvidenceStats, time: u64, limit: u32) -> bool {
    let second = time / 1_000_000_000;
    if stats.second != second {
        stats.second = second;
        stats.in_second = 0;
    }
    stats.in_second += 1;
    stats.in_second > limit as u64
}

#[inline(always)]
fn send_frame(frame: impl Frame, event: &Event) -> bool {
    let len = frame.frame_len();
    let Some(mut entry) = maps::EVIDENCE.reserve::<Evidence>(0) else {
        return false;
    };
    let entry_ptr = entry.as_mut_ptr();
    // No frame is empty.
    let kept = len.min(EVIDENCE_MAX);
    // SAFETY: as much room as an entry needs was reserved.
    let copied = unsafe {
        (&raw mut (*entry_ptr).time).write(event.time);
        (&raw mut (*entry_ptr).number).write(event.number);
        (&raw mut (*entry_ptr).call_id).write(event.call_id);
        (&raw mut (*entry_ptr).frame_len).write(len as u32);
        (&raw mut (*entry_ptr).kept_len).write(kept as u32);
        frame.copy::<EVIDENCE_MAX>(0, (&raw mut (*entry_ptr).bytes).cast(), kept)
    };
    if !copied {
        entry.discard(0);
        return false;
    }
    entry.submit(0);
    true
}
