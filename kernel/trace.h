/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints: what a measurement of a migration needs of the kernel's side
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM vasi

#if !defined(VASI_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define VASI_TRACE_H

#include <linux/tracepoint.h>
#include <linux/types.h>

/* one harvest call: what it looked at, what it found, what it cost */
TRACE_EVENT(vasi_harvest,
	TP_PROTO(u64 stream, u64 start, u64 end, u64 pages, u64 flushes,
		 u64 ns),
	TP_ARGS(stream, start, end, pages, flushes, ns),
	TP_STRUCT__entry(
		__field(u64, stream)
		__field(u64, start)
		__field(u64, end)
		__field(u64, pages)
		__field(u64, flushes)
		__field(u64, ns)
	),
	TP_fast_assign(
		__entry->stream = stream;
		__entry->start = start;
		__entry->end = end;
		__entry->pages = pages;
		__entry->flushes = flushes;
		__entry->ns = ns;
	),
	TP_printk("stream=%llx start=%llx end=%llx pages=%llu flushes=%llu ns=%llu",
		  __entry->stream, __entry->start, __entry->end,
		  __entry->pages, __entry->flushes, __entry->ns)
);

/* one suspend, done or failed (@ret); @tid is the thread in the way */
TRACE_EVENT(vasi_suspend,
	TP_PROTO(u64 stream, u32 threads, u32 passes, u64 ns, int ret, int tid),
	TP_ARGS(stream, threads, passes, ns, ret, tid),
	TP_STRUCT__entry(
		__field(u64, stream)
		__field(u32, threads)
		__field(u32, passes)
		__field(u64, ns)
		__field(int, ret)
		__field(int, tid)
	),
	TP_fast_assign(
		__entry->stream = stream;
		__entry->threads = threads;
		__entry->passes = passes;
		__entry->ns = ns;
		__entry->ret = ret;
		__entry->tid = tid;
	),
	TP_printk("stream=%llx threads=%u passes=%u ns=%llu ret=%d tid=%d",
		  __entry->stream, __entry->threads, __entry->passes,
		  __entry->ns, __entry->ret, __entry->tid)
);

/* the guest runs again after @ns of suspension */
TRACE_EVENT(vasi_resume,
	TP_PROTO(u64 stream, u64 ns),
	TP_ARGS(stream, ns),
	TP_STRUCT__entry(
		__field(u64, stream)
		__field(u64, ns)
	),
	TP_fast_assign(
		__entry->stream = stream;
		__entry->ns = ns;
	),
	TP_printk("stream=%llx ns=%llu", __entry->stream, __entry->ns)
);

/* a change of the stream's state, VASI_STATE_* */
TRACE_EVENT(vasi_state,
	TP_PROTO(u64 stream, u32 service, u32 from, u32 to),
	TP_ARGS(stream, service, from, to),
	TP_STRUCT__entry(
		__field(u64, stream)
		__field(u32, service)
		__field(u32, from)
		__field(u32, to)
	),
	TP_fast_assign(
		__entry->stream = stream;
		__entry->service = service;
		__entry->from = from;
		__entry->to = to;
	),
	TP_printk("stream=%llx service=%u from=%u to=%u", __entry->stream,
		  __entry->service, __entry->from, __entry->to)
);

/* a stream was aborted; @reason as in struct vasi_stream_info */
TRACE_EVENT(vasi_abort,
	TP_PROTO(u64 stream, u32 service, u32 reason),
	TP_ARGS(stream, service, reason),
	TP_STRUCT__entry(
		__field(u64, stream)
		__field(u32, service)
		__field(u32, reason)
	),
	TP_fast_assign(
		__entry->stream = stream;
		__entry->service = service;
		__entry->reason = reason;
	),
	TP_printk("stream=%llx service=%u reason=%x", __entry->stream,
		  __entry->service, __entry->reason)
);

#endif /* VASI_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
