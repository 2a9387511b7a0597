// A PKCS#11 module that forwards to another one and fails on demand. It is for
// tests: it tells and does what a sick device, a vendor's module or a lost network
// connection would.
//
// Built as faultmodule.so it looks for faultmodule.so.control beside itself (no
// environment is needed, so that it works in a process that was given none), maps it,
// and reads the rules there at each call: whoever has the file mapped as well changes
// them while the module runs, and reads what was counted. The file is struct control
// below; package hsm/hsmtest is its other side.
//
// All functions of PKCS#11 v2.40 are forwarded. Arguments are machine words or
// pointers, so that the module needs no declarations of the standard's beyond the
// order of its function list. It may be called from any number of threads.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long W; // CK_ULONG, and all that is one: handles, CK_RV, flags
typedef void *P;         // a pointer that is only passed on
typedef unsigned char B; // CK_BBOOL, CK_BYTE

enum { CKR_OK = 0, CKR_GENERAL_ERROR = 5, CKR_SESSION_COUNT = 0xB1 };
enum { CKA_CLASS = 0, CKA_ID = 0x102 };

struct attribute { W type; P value; W length; }; // CK_ATTRIBUTE

// What a rule does. The numbers are those of hsmtest.Action.
enum action {
	NOTHING,
	REFUSE,     // return the code, the call is not made
	LOSE,       // make the call, then return the code: the reply was lost
	HANG,       // make the call once the rule was changed
	CORRUPT,    // make the call, then flip a bit of what it returns
	EMPTY,      // of C_FindObjects: find nothing
	ABORT,      // abort()
	CRASH,      // write to address 0
	KILL,       // SIGKILL to the process, the call is not made
	KILL_AFTER, // make the call, then SIGKILL to the process
};

// One rule for each function, in the order of the function list. A call is counted,
// then delayed, then, after `after` calls were let pass, `times` calls get the action.
struct rule {
	W calls; // counted here
	W fired; // counted here: how often the action was taken
	W after, times;
	W action, code;
	W delay; // microseconds
	W epoch; // changed with the rule: what hangs goes on
};

enum { FUNCTIONS = 68, MAGIC = 0x4b574654 };

struct control {
	W magic;
	W sessions, most_sessions; // counted here: open now, open at most
	W limit;                   // of sessions; 0: none
	W logout;                  // so many calls find that somebody logged out
	W replaced;                // the token has another serial number
	W renumber;                // object handles name other objects after C_Initialize
	W inside;                  // counted here: calls in the module now
	W generation;              // counted here: successful calls of C_Initialize
	W process;                 // written here: who called C_Initialize last
	W own_iv;                  // AES-GCM's IV is made here, and the token is another vendor's
	W reserved[5];
	char module[384]; // path of the module that does the work
	struct rule rules[FUNCTIONS];
};

static struct control *control;
static W *inner_list; // the other module's function list: a version, then pointers

#define LOAD(p) __atomic_load_n(p, __ATOMIC_SEQ_CST)
#define STORE(p, v) __atomic_store_n(p, v, __ATOMIC_SEQ_CST)
#define ADD(p, n) __atomic_add_fetch(p, n, __ATOMIC_SEQ_CST)
#define SWAP(p, old, new) __atomic_compare_exchange_n(p, old, new, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)

// take counts down to 0, and tells whether there was anything left.
static int take(W *n)
{
	W left = LOAD(n);
	while (left != 0)
		if (SWAP(n, &left, left - 1))
			return 1;
	return 0;
}

// sleep_us sleeps until a point in time, whatever wakes it before.
static void sleep_us(W us)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += (long)(us % 1000000) * 1000;
	t.tv_sec += (long)(us / 1000000) + t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) != 0)
		;
}

// Object handles. With renumber on, each object gets an outward handle of its own,
// remembered by class and id; in every second generation neighbours change places.

enum { OBJECTS = 512, FIRST_HANDLE = 100000, ID_SIZE = 64 };

static struct {
	pthread_mutex_t lock;
	W count;
	struct { W class, id_length, inner; B id[ID_SIZE]; } known[OBJECTS];
} objects = { .lock = PTHREAD_MUTEX_INITIALIZER };

static W (*inner_attributes)(W, W, P, W);

static W outward(W index) { return FIRST_HANDLE + (index ^ (LOAD(&control->generation) & 1)); }

// out turns the other module's handle into ours.
static void out(W session, W *handle)
{
	if (!LOAD(&control->renumber) || handle == NULL || *handle == 0)
		return;
	W class = 0;
	B id[ID_SIZE];
	struct attribute template[] = { { CKA_CLASS, &class, sizeof class }, { CKA_ID, id, sizeof id } };
	if (inner_attributes(session, *handle, template, 2) != CKR_OK)
		template[1].length = 0;
	W length = template[1].length > ID_SIZE ? 0 : template[1].length;

	pthread_mutex_lock(&objects.lock);
	W i = 0;
	while (i < objects.count && !(objects.known[i].class == class && objects.known[i].id_length == length &&
	                              memcmp(objects.known[i].id, id, length) == 0))
		i++;
	if (i == objects.count && objects.count < OBJECTS)
		objects.count++;
	if (i < objects.count) {
		objects.known[i].class = class;
		objects.known[i].id_length = length;
		objects.known[i].inner = *handle;
		memcpy(objects.known[i].id, id, length);
		*handle = outward(i);
	}
	pthread_mutex_unlock(&objects.lock);
}

// in turns our handle into the other module's.
static W in(W handle)
{
	if (!LOAD(&control->renumber) || handle < FIRST_HANDLE)
		return handle;
	W i = (handle - FIRST_HANDLE) ^ (LOAD(&control->generation) & 1), inner = 0;
	pthread_mutex_lock(&objects.lock);
	if (i < objects.count)
		inner = objects.known[i].inner;
	pthread_mutex_unlock(&objects.lock);
	return inner;
}

static void forget_handles(void)
{
	pthread_mutex_lock(&objects.lock);
	for (W i = 0; i < objects.count; i++)
		objects.known[i].inner = 0;
	pthread_mutex_unlock(&objects.lock);
}

// Sessions.

static int reserve_session(void)
{
	W n = LOAD(&control->sessions), limit = LOAD(&control->limit), most;
	do {
		if (limit != 0 && n >= limit)
			return 0;
	} while (!SWAP(&control->sessions, &n, n + 1));
	most = LOAD(&control->most_sessions);
	while (most < n + 1 && !SWAP(&control->most_sessions, &most, n + 1))
		;
	return 1;
}

// One call.

struct call {
	struct rule *rule;
	W action;
};

// NO_OUTPUT stands for a function that returns no bytes; NULL asks for a length.
#define NO_OUTPUT ((P)1)

// arm tells what is to happen to this call. A request for a length has no reply
// that could be lost or changed.
static W arm(struct rule *r, P output)
{
	W action = LOAD(&r->action);
	if (action == NOTHING || (output == NULL && (action == LOSE || action == CORRUPT || action == KILL_AFTER)))
		return NOTHING;
	if (take(&r->after) || !take(&r->times))
		return NOTHING;
	ADD(&r->fired, 1);
	return action;
}

static W inner_logout(W session);

// begin returns 0, or the code with which the call ends here.
static W begin(struct call *c, W function, W session, P output)
{
	struct rule *r = &control->rules[function];
	c->rule = r;
	ADD(&control->inside, 1);
	ADD(&r->calls, 1);
	W delay = LOAD(&r->delay), epoch = LOAD(&r->epoch);
	if (delay != 0)
		sleep_us(delay);
	if (session != 0 && take(&control->logout))
		inner_logout(session);
	c->action = arm(r, output);
	switch (c->action) {
	case REFUSE:
		return LOAD(&r->code);
	case HANG:
		while (LOAD(&r->epoch) == epoch)
			sleep_us(1000);
		break;
	case ABORT:
		abort();
	case CRASH:
		*(volatile int *)0 = 1;
		break;
	case KILL:
		kill(getpid(), SIGKILL);
		pause();
		break;
	}
	return CKR_OK;
}

// end returns what the caller gets.
static W end(struct call *c, W rv, B *output, W length)
{
	switch (c->action) {
	case LOSE:
		rv = LOAD(&c->rule->code);
		break;
	case CORRUPT:
		if (rv == CKR_OK && (P)output != NO_OUTPUT && length > 0)
			output[length / 2] ^= 1;
		break;
	case KILL_AFTER:
		kill(getpid(), SIGKILL);
		pause();
		break;
	}
	ADD(&control->inside, -1UL);
	return rv;
}

static void initialised(void)
{
	W process = (W)getpid();
	forget_handles();
	STORE(&control->sessions, 0);
	if (LOAD(&control->process) != process)
		STORE(&control->inside, 1); // this call: others died with their process
	STORE(&control->process, process);
	ADD(&control->generation, 1);
}

static void closed_session(void) { ADD(&control->sessions, -1UL); }
static void closed_all(void) { STORE(&control->sessions, 0); }
static void logged_in(W session);
static void found(struct call *c, W session, W *handles, W *count)
{
	if (c->action == EMPTY)
		*count = 0;
	for (W i = 0; i < *count; i++)
		out(session, &handles[i]);
}

static void told_token(B *info)
{
	enum { SERIAL_END = 32 + 32 + 16 + 16 - 1 }; // in CK_TOKEN_INFO
	static const char vendor[32] = "Marvell Semiconductors, Inc.    ";
	if (LOAD(&control->own_iv))
		memcpy(info + 32, vendor, sizeof vendor); // manufacturerID
	if (LOAD(&control->replaced))
		info[SERIAL_END] = info[SERIAL_END] == '0' ? '1' : '0';
}

// The functions, in the order of the list: name, parameters, arguments passed on,
// session, where output goes and how much there is of it, and what is done when the
// other module succeeded.
#define TABLE(F) \
F(Initialize, (P a), (a), 0, NO_OUTPUT, 0, initialised()) \
F(Finalize, (P a), (a), 0, NO_OUTPUT, 0, closed_all()) \
F(GetInfo, (P a), (a), 0, NO_OUTPUT, 0, ) \
F(GetFunctionList, (P a), (a), 0, NO_OUTPUT, 0, ) \
F(GetSlotList, (B a, P b, P n), (a, b, n), 0, NO_OUTPUT, 0, ) \
F(GetSlotInfo, (W a, P b), (a, b), 0, NO_OUTPUT, 0, ) \
F(GetTokenInfo, (W a, P b), (a, b), 0, NO_OUTPUT, 0, told_token(b)) \
F(GetMechanismList, (W a, P b, P n), (a, b, n), 0, NO_OUTPUT, 0, ) \
F(GetMechanismInfo, (W a, W b, P n), (a, b, n), 0, NO_OUTPUT, 0, ) \
F(InitToken, (W a, P b, W n, P d), (a, b, n, d), 0, NO_OUTPUT, 0, ) \
F(InitPIN, (W s, P b, W n), (s, b, n), 0, NO_OUTPUT, 0, ) \
F(SetPIN, (W s, P a, W n, P b, W m), (s, a, n, b, m), 0, NO_OUTPUT, 0, ) \
F(OpenSession, (W a, W f, P x, P y, P s), (a, f, x, y, s), 0, NO_OUTPUT, 0, ) \
F(CloseSession, (W s), (s), 0, NO_OUTPUT, 0, closed_session()) \
F(CloseAllSessions, (W a), (a), 0, NO_OUTPUT, 0, closed_all()) \
F(GetSessionInfo, (W s, P a), (s, a), s, NO_OUTPUT, 0, ) \
F(GetOperationState, (W s, P o, W *n), (s, o, n), s, o, *n, ) \
F(SetOperationState, (W s, P a, W n, W k, W l), (s, a, n, in(k), in(l)), s, NO_OUTPUT, 0, ) \
F(Login, (W s, W u, P a, W n), (s, u, a, n), 0, NO_OUTPUT, 0, logged_in(s)) \
F(Logout, (W s), (s), 0, NO_OUTPUT, 0, ) \
F(CreateObject, (W s, P t, W n, W *k), (s, t, n, k), s, NO_OUTPUT, 0, out(s, k)) \
F(CopyObject, (W s, W o, P t, W n, W *k), (s, in(o), t, n, k), s, NO_OUTPUT, 0, out(s, k)) \
F(DestroyObject, (W s, W o), (s, in(o)), s, NO_OUTPUT, 0, ) \
F(GetObjectSize, (W s, W o, P n), (s, in(o), n), s, NO_OUTPUT, 0, ) \
F(GetAttributeValue, (W s, W o, P t, W n), (s, in(o), t, n), s, NO_OUTPUT, 0, ) \
F(SetAttributeValue, (W s, W o, P t, W n), (s, in(o), t, n), s, NO_OUTPUT, 0, ) \
F(FindObjectsInit, (W s, P t, W n), (s, t, n), s, NO_OUTPUT, 0, ) \
F(FindObjects, (W s, W *h, W m, W *n), (s, h, m, n), s, NO_OUTPUT, 0, found(&c, s, h, n)) \
F(FindObjectsFinal, (W s), (s), s, NO_OUTPUT, 0, ) \
F(EncryptInit, (W s, P m, W k), (s, m, in(k)), s, NO_OUTPUT, 0, ) \
F(Encrypt, (W s, P a, W l, P o, W *n), (s, a, l, o, n), s, o, *n, ) \
F(EncryptUpdate, (W s, P a, W l, P o, W *n), (s, a, l, o, n), s, o, *n, ) \
F(EncryptFinal, (W s, P o, W *n), (s, o, n), s, o, *n, ) \
F(DecryptInit, (W s, P m, W k), (s, m, in(k)), s, NO_OUTPUT, 0, ) \
F(Decrypt, (W s, P a, W l, P o, W *n), (s, a, l, o, n), s, o, *n, ) \
F(DecryptUpdate, (W s, P a, W l, P o, W *n), (s, a, l, o, n), s, o, *n, ) \
F(DecryptFinal, (W s, P o, W *n), (s, o, n), s, o, *n, ) \
F(DigestInit, (W s, P m), (s, m), s, NO_OUTPUT, 0, ) \
F(Digest, (W s, P a, W l, P o, W *n), (s, a, l, o, n), s, o, *n, ) \
F(DigestUpdate, (W s, P a, W l), (s, a, l), s, NO_OUTPUT, 0, ) \
F(DigestKey, (W s, W k), (s, in(k)), s, NO_OUTPUT, 0, ) \
F(DigestFinal, (W s, P o, W *n), (s, o, n), s, o, *n, ) \
F(SignInit, (W s, P m, W k), (s, m, in(k)), s, NO_OUTPUT, 0, ) \
F(Sign, (W s, P a, W l, P o, W *n), (s, a, l, o, n), s, o, *n, ) \
F(SignUpdate, (W s, P a, W l), (s, a, l), s, NO_OUTPUT, 0, ) \
F(SignFinal, (W s, P o, W *n), (s, o, n), s, o, *n, ) \
F(SignRecoverInit, (W s, P m, W k), (s, m, in(k)), s, NO_OUTPUT, 0, ) \
F(SignRecover, (W s, P a, W l, P o, W *n), (s, a, l, o, n), s, o, *n, ) \
F(VerifyInit, (W s, P m, W k), (s, m, in(k)), s, NO_OUTPUT, 0, ) \
F(Verify, (W s, P a, W l, P b, W n), (s, a, l, b, n), s, NO_OUTPUT, 0, ) \
F(VerifyUpdate, (W s, P a, W l), (s, a, l), s, NO_OUTPUT, 0, ) \
F(VerifyFinal, (W s, P b, W n), (s, b, n), s, NO_OUTPUT, 0, ) \
F(VerifyRecoverInit, (W s, P m, W k), (s, m, in(k)), s, NO_OUTPUT, 0, ) \
F(VerifyRecover, (W s, P a, W l, P o, W *n), (s, a, l, o, n), s, o, *n, ) \
F(DigestEncryptUpdate, (W s, P a, W l, P o, W *n), (s, a, l, o, n), s, o, *n, ) \
F(DecryptDigestUpdate, (W s, P a, W l, P o, W *n), (s, a, l, o, n), s, o, *n, ) \
F(SignEncryptUpdate, (W s, P a, W l, P o, W *n), (s, a, l, o, n), s, o, *n, ) \
F(DecryptVerifyUpdate, (W s, P a, W l, P o, W *n), (s, a, l, o, n), s, o, *n, ) \
F(GenerateKey, (W s, P m, P t, W n, W *k), (s, m, t, n, k), s, NO_OUTPUT, 0, out(s, k)) \
F(GenerateKeyPair, (W s, P m, P t, W n, P u, W l, W *k, W *h), (s, m, t, n, u, l, k, h), s, NO_OUTPUT, 0, (out(s, k), out(s, h))) \
F(WrapKey, (W s, P m, W k, W h, P o, W *n), (s, m, in(k), in(h), o, n), s, o, *n, ) \
F(UnwrapKey, (W s, P m, W k, P a, W l, P t, W n, W *h), (s, m, in(k), a, l, t, n, h), s, NO_OUTPUT, 0, out(s, h)) \
F(DeriveKey, (W s, P m, W k, P t, W n, W *h), (s, m, in(k), t, n, h), s, NO_OUTPUT, 0, out(s, h)) \
F(SeedRandom, (W s, P a, W l), (s, a, l), s, NO_OUTPUT, 0, ) \
F(GenerateRandom, (W s, P o, W n), (s, o, n), s, o, n, ) \
F(GetFunctionStatus, (W s), (s), s, NO_OUTPUT, 0, ) \
F(CancelFunction, (W s), (s), s, NO_OUTPUT, 0, ) \
F(WaitForSlotEvent, (W f, P a, P b), (f, a, b), 0, NO_OUTPUT, 0, )

#define NUMBER(name, ...) F_##name,
enum function { TABLE(NUMBER) COUNT };
_Static_assert((int)COUNT == (int)FUNCTIONS, "PKCS#11 v2.40 has 68 functions");

// INNER is the other module's function; the list begins with a version, padded.
#define INNER(name) (inner_list[1 + F_##name])

#define FORWARD(name, params, args, session, output, length, done)              \
	static W forward_##name params                                          \
	{                                                                       \
		struct call c;                                                  \
		W rv = begin(&c, F_##name, session, output);                    \
		if (rv != CKR_OK)                                               \
			return end(&c, rv, NO_OUTPUT, 0);                       \
		rv = ((W(*) params)INNER(name)) args;                           \
		if (rv == CKR_OK) {                                             \
			done;                                                   \
		}                                                               \
		return end(&c, rv, output, rv == CKR_OK ? (length) : 0);        \
	}
TABLE(FORWARD)

// limited is C_OpenSession under the limit of sessions.
static W limited(W slot, W flags, P x, P y, P session)
{
	if (!reserve_session()) {
		ADD(&control->rules[F_OpenSession].calls, 1);
		return CKR_SESSION_COUNT;
	}
	W rv = forward_OpenSession(slot, flags, x, y, session);
	if (rv != CKR_OK)
		closed_session();
	return rv;
}

// own_iv is C_EncryptInit of an HSM that makes the IV of AES-GCM itself, and takes
// nothing but zeros in its place.
static W own_iv(W session, P mechanism, W key)
{
	enum { CKM_AES_GCM = 0x1087, CKR_MECHANISM_PARAM_INVALID = 0x71, IV_SIZE = 12 };
	struct { W type; struct { B *iv; W size; } *gcm; W length; } *m = mechanism;
	static const B zeros[IV_SIZE];
	if (LOAD(&control->own_iv) && m->type == CKM_AES_GCM && m->gcm != NULL) {
		if (m->gcm->size != IV_SIZE || memcmp(m->gcm->iv, zeros, IV_SIZE) != 0)
			return CKR_MECHANISM_PARAM_INVALID;
		if (LOAD(&control->own_iv) == 1 && getrandom(m->gcm->iv, IV_SIZE, 0) != IV_SIZE)
			return CKR_GENERAL_ERROR;
	}
	return forward_EncryptInit(session, mechanism, key);
}

static W inner_logout(W session) { return ((W(*)(W))INNER(Logout))(session); }

// logged_in learns all objects, so that from now on an old handle names another one.
static void logged_in(W session)
{
	W handle, n;
	if (!LOAD(&control->renumber) || ((W(*)(W, P, W))INNER(FindObjectsInit))(session, NULL, 0) != CKR_OK)
		return;
	while (((W(*)(W, W *, W, W *))INNER(FindObjects))(session, &handle, 1, &n) == CKR_OK && n == 1)
		out(session, &handle);
	((W(*)(W))INNER(FindObjectsFinal))(session);
}

// Loading.

static W list[1 + FUNCTIONS];

static int map_control(void)
{
	Dl_info self;
	char path[4096];
	if (dladdr(&list, &self) == 0 || snprintf(path, sizeof path, "%s.control", self.dli_fname) >= (int)sizeof path)
		return 0;
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return 0;
	struct control *c = mmap(NULL, sizeof *c, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (c == MAP_FAILED || c->magic != MAGIC)
		return 0;
	control = c;
	return 1;
}

static int load_inner(void)
{
	P library = dlopen(control->module, RTLD_NOW);
	if (library == NULL)
		return 0;
	W (*get)(W **) = (W(*)(W **))dlsym(library, "C_GetFunctionList");
	return get != NULL && get(&inner_list) == CKR_OK;
}

static void load(void)
{
	if (!map_control() || !load_inner())
		return;
	inner_attributes = (W(*)(W, W, P, W))INNER(GetAttributeValue);
	((B *)list)[0] = 2; // CK_VERSION
	((B *)list)[1] = 40;
#define FILL(name, ...) list[1 + F_##name] = (W)forward_##name;
	TABLE(FILL)
	list[1 + F_OpenSession] = (W)limited;
	list[1 + F_EncryptInit] = (W)own_iv;
}

W C_GetFunctionList(W **functions)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, load);
	if (list[1] == 0)
		return CKR_GENERAL_ERROR;
	list[1 + F_GetFunctionList] = (W)C_GetFunctionList;
	*functions = list;
	return CKR_OK;
}
