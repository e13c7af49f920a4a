/*
 * pause is process 1 of a pod's sandbox. It holds the pod's namespaces open, and, when the pod shares its process
 * namespace, reaps the children that containers leave behind. It ends on SIGINT and SIGTERM.
 *
 * There is one for every pod, so it is built without a C library: it owns a few pages of memory. All signals stay
 * blocked and are taken one by one with rt_sigtimedwait, which needs no signal handler; a blocked signal is queued even
 * for process 1, for which the kernel drops signals without a handler otherwise.
 *
 * Before it waits it closes all files but the standard ones, and gives up all system calls but those that it waits,
 * reaps and ends with.
 */

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>

#if defined(__x86_64__)
enum { SYS_write = 1, SYS_close = 3, SYS_rt_sigprocmask = 14, SYS_wait4 = 61, SYS_rt_sigtimedwait = 128, SYS_prctl = 157,
       SYS_exit_group = 231, ARCH = AUDIT_ARCH_X86_64 };

static long call(long n, long a, long b, long c, long d)
{
	long ret;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = 0; /* prctl insists */
	__asm__ volatile("syscall" : "=a"(ret) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
	return ret;
}

__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n");
#elif defined(__aarch64__)
enum { SYS_close = 57, SYS_write = 64, SYS_rt_sigprocmask = 135, SYS_wait4 = 260, SYS_rt_sigtimedwait = 137, SYS_prctl = 167,
       SYS_exit_group = 94, ARCH = AUDIT_ARCH_AARCH64 };

static long call(long n, long a, long b, long c, long d)
{
	register long x8 __asm__("x8") = n;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = 0; /* prctl insists */
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	return x0;
}

__asm__(".globl _start\n_start:\n\tmov x29, #0\n\tmov x0, sp\n\tbl start\n");
#else
#error "pause knows x86_64 and aarch64 only"
#endif

enum { SIGINT = 2, SIGTERM = 15, SIGCHLD = 17 };
enum { SIG_BLOCK = 0, WNOHANG = 1, EINTR = 4, EINVAL = 22 };

enum { SYS_close_range = 436 };

/* What a careless ancestor has left open stays out of the sandbox. A kernel before 5.9 closes files one by one. */
static void close_files(void)
{
	if (call(SYS_close_range, 3, ~0U, 0, 0) == 0)
		return;
	for (int fd = 3; fd < 1024; fd++)
		call(SYS_close, fd, 0, 0, 0);
}

/* Numbers and architecture as in struct seccomp_data. Calls of another architecture (of 32 bits) have numbers of their own. */
static const struct sock_filter filter[] = {
	{ BPF_LD | BPF_W | BPF_ABS, 0, 0, 4 },
	{ BPF_JMP | BPF_JEQ | BPF_K, 0, 4, ARCH },
	{ BPF_LD | BPF_W | BPF_ABS, 0, 0, 0 },
	{ BPF_JMP | BPF_JEQ | BPF_K, 3, 0, SYS_rt_sigtimedwait },
	{ BPF_JMP | BPF_JEQ | BPF_K, 2, 0, SYS_wait4 },
	{ BPF_JMP | BPF_JEQ | BPF_K, 1, 0, SYS_exit_group },
	{ BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | 1 /* EPERM */ },
	{ BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW },
};

/* A kernel without filters says EINVAL; it is not for pause to demand one. */
static void confine(void)
{
	const struct sock_fprog program = { sizeof filter / sizeof filter[0], (struct sock_filter *)filter };
	call(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0);
	long err = call(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, (long)&program, 0);
	if (err && err != -EINVAL)
		call(SYS_exit_group, 1, 0, 0, 0);
}

__attribute__((noreturn, used)) void start(const long *stack)
{
	/* stack: argc, argv[0], argv[1], ... */
	const char *const *argv = (const char *const *)(stack + 1);
	if (stack[0] > 1 && argv[1][0] == '-' && argv[1][1] == 'v') {
		static const char version[] = "pause 1\n";
		call(SYS_write, 1, (long)version, sizeof version - 1, 0);
		call(SYS_exit_group, 0, 0, 0, 0);
	}

	unsigned long all = ~0UL;
	unsigned long wanted = 1UL << (SIGINT - 1) | 1UL << (SIGTERM - 1) | 1UL << (SIGCHLD - 1);
	call(SYS_rt_sigprocmask, SIG_BLOCK, (long)&all, 0, sizeof all);
	close_files();
	confine();
	for (;;) {
		long sig = call(SYS_rt_sigtimedwait, (long)&wanted, 0, 0, sizeof wanted);
		switch (sig) {
		case -EINTR:
			break;
		case SIGCHLD:
			while (call(SYS_wait4, -1, 0, WNOHANG, 0) > 0)
				;
			break;
		case SIGINT:
		case SIGTERM:
			call(SYS_exit_group, 0, 0, 0, 0);
			break;
		default:
			/* Something forbids the call: end rather than spin. */
			call(SYS_exit_group, 1, 0, 0, 0);
		}
	}
}
