// SPDX-License-Identifier: GPL-2.0
/*
 * The switch-over, as a model that spin searches in every order of events
 *
 * What it covers, its bounds, how to run it and where its steps are in the code:
 * switch-over.rst, "The model".
 *
 * A message is a bit: once sent it may arrive at any later time, any number of
 * times, behind the end of its connection, or never, for every wait may end
 * without it. Only who asks does so until there is an answer; that a Query or a
 * Status is lost is one of the faults therefore.
 *
 * Copies are what the kernel holds: they outlive the processes, not the host.
 *
 * A macro BREAK_... breaks one rule each. The search must fail then.
 */

#ifndef FAULTS
#define FAULTS	3	/* of any kind, together */
#endif

mtype:state = {
	RUNNING, SUSPENDED, SEALED, COMMITTED, IN_DOUBT, COMPLETED, RETURNED,
	BUILDING, PREPARED, RESUMED, REFUSED
};
mtype:copy = { absent, stopped, sealed, runs };
mtype:record = { none, begin, prepared, commit, refused, completed, returned };

typedef host {
	mtype:state state;	/* what its process believes */
	mtype:copy copy;
	mtype:record cache;	/* the journal's last record, as it is read... */
	mtype:record disk;	/* ...and as a power loss may leave it */
}
host src, dst;

bool Final, Ready, Commit, Resumed, Completed, Failed;
bool Query, Query_lost, said_committed, said_refused;	/* the last: Status */
bool worker_lives = true;
bool worker_locks, daemon_locks;	/* the journal of the target */
bool source_crash, daemon_crash;
bool lost;		/* the source's records are of another boot */
byte faults;

/* what the properties speak of, and no process looks at */
bool taking;		/* the target has looked at its copy, and will record */
bool ran;		/* the guest has run on the target */
bool ran_on;		/* and on the source, behind its final image */
bool died;		/* it did, or its host lost power, where it was owned */
/* while the target records, a loss on either side may be that of the guest */
#define source_owns	(!ran && (dst.cache != commit || dst.disk != commit))
#define target_owns	(ran || taking || dst.cache == commit || dst.disk == commit)

/* -- journals and copies */

#define fault_if(cond)	faults > 0 && (cond) -> faults--

/*
 * A write and an fsync. What could not be written is taken back, and a power
 * loss may bring it again, as it may with what was not synced yet.
 */
inline append(h, what)
{
	atomic { was = h.cache; h.cache = what };
	if
	:: atomic { h.disk = what; failed = false; was = 0 }
	:: atomic { fault_if(true); h.cache = was; failed = true; was = 0 }
	:: atomic {
		fault_if(true);
		h.disk = what;
		h.cache = was;
		failed = true;
		was = 0
	   }
	fi
}

/* the end of the process before it: was that record synced? */
inline open_journal(h)
{
#ifdef BREAK_TRUSTS_CACHE
	failed = false
#else
	if
	:: atomic { h.disk = h.cache; failed = false }
	:: atomic { fault_if(true); failed = true }
	fi
#endif
}

/* a power loss may bring it again */
#define remove_journal(h)	h.cache = none

/* One call. It fails if the copy was killed, and then the copy did not run. */
inline resume(h)
{
	atomic {
		if
		:: h.copy != absent -> h.copy = runs; failed = false
		:: else -> failed = true
		fi;
		ran = ran || dst.copy == runs;
		ran_on = ran_on || src.copy == runs
	}
}

inline destroy(h)
{
	atomic {
		if
		:: h.copy == sealed -> h.copy = absent
		:: else
		fi
	}
}

/* -- the source: its worker, and then whoever recovers */

#define ask(how, cond)	atomic { \
	(cond) && !how && !said_committed && !said_refused -> how = true }

proctype source()
{
	bool failed, recovers;
	mtype:record was;

restart:
	{
		if
		:: recovers ->
			src.disk = src.cache;
			if
			:: src.cache == none -> goto over
#ifdef BREAK_OLD_IMAGE
			:: src.cache == begin && lost -> goto in_doubt
#else
			:: src.cache == begin && lost -> goto forget
#endif
			:: src.cache == begin && !lost -> goto roll_back
			:: src.cache == commit && !lost && src.copy != sealed ->
				goto forget	/* all but the record was done */
			:: src.cache == commit && (lost || src.copy == sealed) ->
				goto in_doubt
			:: src.cache == completed -> goto forget
			:: src.cache == returned && lost -> goto tell
			:: src.cache == returned && !lost -> resume(src); goto tell
			fi
		:: else
		fi;
		atomic {		/* it is made whole, or not at all */
			recovers = true;
			src.cache = begin;
			src.disk = begin
		};
		atomic {
			if
			:: src.copy == runs -> src.copy = stopped
			:: else -> goto forget		/* it was killed */
			fi;
			src.state = SUSPENDED;
			Final = true
		};
		if
		:: Ready
		:: true -> goto roll_back	/* Failed, a cancel, silence */
		fi;
#ifndef BREAK_COMMIT_UNSEALED
		atomic {
			if
			:: src.copy == stopped -> src.copy = sealed
			:: else -> goto roll_back
			fi;
			src.state = SEALED
		};
		if
		:: true
		:: true -> goto roll_back	/* a cancel; it took too long */
		fi;
#endif
#ifdef BREAK_SEND_FIRST
		Commit = true;
#endif
		append(src, commit);
#ifdef BREAK_HALF_COMMITTED
		if
		:: failed -> goto roll_back
		:: else
		fi;
#endif
		if
		:: failed ->		/* a power loss could bring it again */
			append(src, returned);
			if
			:: failed -> goto in_doubt
			:: else -> goto roll_back
			fi
		:: else -> src.state = COMMITTED
		fi;
		Commit = true;
#ifdef BREAK_COMMIT_UNSEALED
		atomic {
			if
			:: src.copy == stopped -> src.copy = sealed
			:: else
			fi
		};
#endif
#ifdef BREAK_NOT_AWAITED
		goto complete;
#endif
		if
		:: Resumed -> goto complete
		:: Failed -> goto take_back
#ifdef BREAK_TIMEOUT_UNSEALS
		:: true -> goto take_back
#else
		:: true -> goto in_doubt
#endif
		fi;
in_doubt:
		src.state = IN_DOUBT;
		do
#ifndef BREAK_NEVER_ASKS
		:: ask(Query_lost, lost)
		:: ask(Query, !lost)
#endif
		:: said_committed -> goto complete
		:: said_refused -> goto take_back
		od;
complete:
		destroy(src);
		append(src, completed);		/* if not: see above, forget */
		atomic {
			src.state = COMPLETED;
			Completed = Completed || !failed;
			failed = false
		};
		goto forget;
take_back:
		resume(src);
		src.state = RETURNED;
		append(src, returned);		/* if not, likewise */
		goto forget;
roll_back:
		resume(src);
		src.state = RUNNING;
		if
		:: src.cache != returned -> append(src, returned)
		:: else			/* if not: see above, begin */
		fi;
#ifdef BREAK_NOT_TOLD
		goto forget;
#endif
tell:		/* there may be a copy: the target learns that it is of no use */
		do
		:: Failed -> break
		:: said_refused -> break
		:: ask(Query, true)
		od;
forget:
		remove_journal(src);
over:
		failed = false;
end:		false
	} unless {
		atomic { source_crash -> source_crash = false; failed = false; was = 0 };
		goto restart
	}
}

/* -- the target: only who has the lock of its journal decides */

inline refuse(answer)
{
#ifdef BREAK_ANSWER_FIRST
	answer = true;
#endif
	append(dst, refused);
	if
	:: !failed ->
		destroy(dst);
		atomic { dst.state = REFUSED; answer = true }
	:: else -> failed = false	/* no answer: it stays as it is */
	fi
}

inline take_over(answer)
{
	atomic {
		failed = dst.copy == absent;
		taking = !failed
	};
#ifdef BREAK_RESUME_FIRST
	resume(dst);
#endif
	if
	:: !failed -> append(dst, commit)
	:: else
	fi;
	taking = false;
	if
	:: !failed -> dst.state = COMMITTED; resume(dst)
	:: else
	fi;
	if
	:: !failed -> atomic { dst.state = RESUMED; answer = true }
	:: else -> refuse(Failed)
	fi
}

/* The worker of the migration: what it builds dies with it until it is sealed. */
proctype worker()
{
	bool failed;
	mtype:record was;

	{
		atomic {		/* is made whole, and only if there is none */
			!daemon_locks;
			if
			:: dst.cache == none ->
				worker_locks = true;
				dst.cache = begin;
				dst.disk = begin
			:: else -> goto gone		/* refused already */
			fi
		};
		if
		:: Final -> dst.copy = sealed
		:: true -> goto undone		/* whatever goes wrong */
		fi;
		append(dst, prepared);
		if
		:: failed -> destroy(dst); goto undone
		:: else -> atomic { dst.state = PREPARED; Ready = true }
		fi;
		if
		:: Commit -> take_over(Resumed)
		:: true -> refuse(Failed)	/* Abort, silence, a cut */
		fi;
		atomic {
			worker_locks = false;
			if
			:: dst.state != RESUMED -> goto gone
			:: else
			fi
		};
#ifndef BREAK_FORGETS
		if
		:: Completed
		:: true -> goto gone
		fi;
#endif
		atomic { !daemon_locks; remove_journal(dst) };
		goto gone;
undone:
		remove_journal(dst);
		Failed = true;
gone:
		atomic { worker_locks = false; worker_lives = false }
	} unless {
		!worker_lives
	}
}

#ifdef BREAK_NO_LOCK
#define unlocked	(dst.state != BUILDING)
#else
#define unlocked	(!worker_locks)
#endif
#define lock_if(cond)	atomic { unlocked && (cond) -> daemon_locks = true }

/* @no_copy: the source was committed, and has none any more */
inline answer_query()
{
	open_journal(dst);
	if
	:: failed			/* no answer: it is asked again */
#ifdef BREAK_LOST_IS_REFUSED
	:: !failed && dst.cache == commit && dst.copy == absent ->
		refuse(said_refused)
#endif
	:: !failed && dst.cache == commit -> said_committed = true
	:: !failed && dst.cache == prepared && no_copy ->
		take_over(said_committed)
	:: !failed && dst.cache != commit && (dst.cache != prepared || !no_copy) ->
#ifdef BREAK_NO_TOMBSTONE
		said_refused = true
#else
		refuse(said_refused)
#endif
	fi;
	no_copy = false
}

/* Whoever has a journal without a worker: the daemon's recovery, who is asked. */
proctype daemon()
{
	bool failed, no_copy;
	mtype:record was;

end_idle:
	{
end:		do
		:: if
		   :: lock_if(dst.cache == begin) ->
			destroy(dst);
			remove_journal(dst)
		   :: lock_if(dst.cache == prepared && dst.copy == absent) ->
			remove_journal(dst)
		   :: lock_if(dst.cache == refused && dst.copy == sealed) ->
			open_journal(dst);
			if
			:: !failed -> destroy(dst)
			:: else
			fi
		   :: lock_if(dst.cache == commit && dst.copy == sealed) ->
			open_journal(dst);
			if
			:: !failed -> resume(dst); dst.state = RESUMED
			:: else
			fi
		   :: atomic {
			unlocked && (Query || Query_lost) -> daemon_locks = true;
			if
			:: Query -> Query = false
			:: Query_lost -> Query_lost = false; no_copy = true
			/* and it comes once more */
			:: fault_if(Query)
			:: fault_if(Query_lost); no_copy = true
			fi
		      };
		      answer_query()
		   /* a Commit that is late: no daemon of ours takes it any more */
		   :: atomic {
			fault_if(unlocked && dst.cache == prepared && Commit);
			daemon_locks = true
		      };
		      take_over(Resumed)
		   fi;
		   atomic { daemon_locks = false; failed = false }
		od
	} unless {
		atomic {
			daemon_crash -> daemon_crash = false;
			failed = false;
			no_copy = false;
			was = 0
		};
		goto end_idle
	}
}

/* -- what happens to them */

inline power_loss(h)
{
	h.copy = absent;
	if
	:: h.cache = h.disk
	:: h.disk = h.cache
	fi
}

proctype world()
{
	do
	:: atomic {			/* an unsealed guest runs on */
		fault_if(true);
		source_crash = true;
		if
		:: src.copy == stopped -> src.copy = runs; ran_on = true
		:: else
		fi
	   }
	:: atomic {
		fault_if(worker_lives);
		worker_lives = false;
		worker_locks = false;
		taking = false
	   }
	:: atomic {
		fault_if(true);
		daemon_crash = true;
		daemon_locks = false;
		taking = taking && worker_locks
	   }
	:: atomic {
		fault_if(true);
		died = died || source_owns;
		lost = true;
		source_crash = true;
		power_loss(src)
	   }
	:: atomic {
		fault_if(true);
		died = died || target_owns;
		worker_lives = false;
		worker_locks = false;
		daemon_crash = true;
		daemon_locks = false;
		taking = false;
		power_loss(dst)
	   }
	:: atomic {			/* killed; by the OOM killer, say */
		fault_if(src.copy != absent);
		died = died || source_owns;
		src.copy = absent
	   }
	:: atomic {
		fault_if(dst.copy != absent);
		died = died || target_owns;
		dst.copy = absent
	   }
	:: atomic { fault_if(Query); Query = false }
	:: atomic { fault_if(Query_lost); Query_lost = false }
	:: atomic { fault_if(said_committed); said_committed = false }
	:: atomic { fault_if(said_refused); said_refused = false }
	:: faults == 0 -> break
	od
}

init {
	atomic {
		select(faults : 0 .. FAULTS);
		src.state = RUNNING;
		src.copy = runs;
		src.cache = none;
		src.disk = none;
		dst.state = BUILDING;
		dst.copy = absent;
		dst.cache = none;
		dst.disk = none;
		run source();
		run worker();
		run daemon();
		run world()
	}
}

/* -- what must hold */

#define one_runs	((src.copy == runs) + (dst.copy == runs) == 1)
#define waits(h)	(h.copy == stopped || h.copy == sealed)
#define source_over	(src.cache == none && !waits(src))

/* never two running copies */
ltl never_two { [] !(src.copy == runs && dst.copy == runs) }
/* nor one after the other, from the same image */
ltl never_twice { [] !(ran && ran_on) }
/* never zero copies, whatever their state */
ltl never_lost { [] (died || src.copy != absent || dst.copy != absent) }
/* in the end nothing is in doubt: the guest runs in one place, none waits */
ltl settled { <> [] (source_over && (died || (one_runs && !waits(dst)))) }
