// Calls that miekg/pkcs11 makes in a way that Keywright cannot live with: each is
// one passage into C, knows its output's size, and copies no secret.
//
// What is declared here of PKCS#11 v2.40 is what these calls need, as it lies in
// memory on every system but Windows: not packed, CK_ULONG a long.

#include <stddef.h>

typedef unsigned char kw_byte;
typedef unsigned long kw_ulong;

// kw_result is a return value, and the size of an output or a handle.
typedef struct {
	kw_ulong rv;
	kw_ulong value;
} kw_result;

// Operations of kw_run.
enum { KW_ENCRYPT, KW_DECRYPT, KW_SIGN };

// Parameters of a mechanism, made of the arguments of kw_run:
// KW_GCM of a = IV, b = AAD, x = bits of the tag; KW_PSS of x = hash, y = MGF,
// z = length of the salt; KW_OAEP of a = label, x = hash, y = MGF.
enum { KW_NONE, KW_GCM, KW_PSS, KW_OAEP };

// kw_run is C_EncryptInit and C_Encrypt, or their like, of at most size bytes of
// output.
kw_result kw_run(void *functions, int operation, kw_ulong session, kw_ulong key,
	kw_ulong mechanism, int parameters, kw_ulong x, kw_ulong y, kw_ulong z,
	kw_byte *a, kw_ulong a_size, kw_byte *b, kw_ulong b_size,
	kw_byte *in, kw_ulong in_size, kw_byte *out, kw_ulong size);

// kw_agree is C_DeriveKey by a mechanism with CK_ECDH1_DERIVE_PARAMS into a session
// object of size bytes, which is read into out and destroyed.
kw_result kw_agree(void *functions, kw_ulong session, kw_ulong key, kw_ulong mechanism,
	kw_byte *peer, kw_ulong peer_size, kw_byte *out, kw_ulong size);

// kw_create is C_CreateObject. The template is a row of attributes: type, size,
// value, padded to a multiple of 8 bytes.
kw_result kw_create(void *functions, kw_ulong session, kw_byte *template, kw_ulong size);
