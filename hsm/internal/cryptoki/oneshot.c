#include "oneshot.h"

#include <stdint.h>

typedef void (*function)(void);

// function_list is CK_FUNCTION_LIST: the functions stand in the order of the
// standard's pkcs11f.h.
typedef struct {
	kw_byte major, minor;
	function functions[68];
} function_list;

enum {
	CREATE_OBJECT = 20,
	DESTROY_OBJECT = 22,
	GET_ATTRIBUTE_VALUE = 24,
	ENCRYPT_INIT = 29,
	ENCRYPT = 30,
	DECRYPT_INIT = 33,
	DECRYPT = 34,
	SIGN_INIT = 42,
	SIGN = 43,
	DERIVE_KEY = 62,
};

// CKR_OK, CKR_ARGUMENTS_BAD, CKR_FUNCTION_NOT_SUPPORTED, CKR_DEVICE_ERROR.
enum { OK = 0, ARGUMENTS_BAD = 0x07, DEVICE_ERROR = 0x30, NOT_SUPPORTED = 0x54 };

enum {
	CKO_SECRET_KEY = 4,
	CKK_GENERIC_SECRET = 0x10,
	CKA_CLASS = 0,
	CKA_TOKEN = 1,
	CKA_VALUE = 0x11,
	CKA_KEY_TYPE = 0x100,
	CKA_SENSITIVE = 0x103,
	CKA_VALUE_LEN = 0x161,
	CKA_EXTRACTABLE = 0x162,
	CKD_NULL = 1,
	CKZ_DATA_SPECIFIED = 1,
};

typedef struct {
	kw_ulong mechanism;
	void *parameter;
	kw_ulong size;
} mechanism;

typedef struct {
	kw_ulong type;
	void *value;
	kw_ulong size;
} attribute;

typedef kw_ulong (*init)(kw_ulong session, mechanism *, kw_ulong key);
typedef kw_ulong (*operate)(kw_ulong session, kw_byte *in, kw_ulong in_size, kw_byte *out, kw_ulong *size);
typedef kw_ulong (*derive_key)(kw_ulong session, mechanism *, kw_ulong key, attribute *, kw_ulong count, kw_ulong *handle);
typedef kw_ulong (*get_attributes)(kw_ulong session, kw_ulong object, attribute *, kw_ulong count);
typedef kw_ulong (*create_object)(kw_ulong session, attribute *, kw_ulong count, kw_ulong *handle);
typedef kw_ulong (*destroy_object)(kw_ulong session, kw_ulong object);

static function at(void *functions, int index) {
	return ((function_list *)functions)->functions[index];
}

kw_result kw_run(void *functions, int operation, kw_ulong session, kw_ulong key,
	kw_ulong type, int parameters, kw_ulong x, kw_ulong y, kw_ulong z,
	kw_byte *a, kw_ulong a_size, kw_byte *b, kw_ulong b_size,
	kw_byte *in, kw_ulong in_size, kw_byte *out, kw_ulong size) {
	static const int calls[][2] = {
		[KW_ENCRYPT] = {ENCRYPT_INIT, ENCRYPT},
		[KW_DECRYPT] = {DECRYPT_INIT, DECRYPT},
		[KW_SIGN] = {SIGN_INIT, SIGN},
	};
	struct {
		kw_byte *iv;
		kw_ulong iv_size, iv_bits;
		kw_byte *aad;
		kw_ulong aad_size, tag_bits;
	} gcm = {a, a_size, 8 * a_size, b, b_size, x};
	struct {
		kw_ulong hash, mgf, salt_size;
	} pss = {x, y, z};
	struct {
		kw_ulong hash, mgf, source;
		void *label;
		kw_ulong label_size;
	} oaep = {x, y, CKZ_DATA_SPECIFIED, a, a_size};
	mechanism m = {type, NULL, 0};
	kw_byte none = 0; // some modules refuse NULL for an empty input
	kw_result result = {OK, size};

	if (a_size == 0)
		oaep.label = NULL; // some refuse anything but NULL for an empty label
	if (b_size == 0)
		gcm.aad = NULL;
	switch (parameters) {
	case KW_GCM:
		m.parameter = &gcm;
		m.size = sizeof gcm;
		break;
	case KW_PSS:
		m.parameter = &pss;
		m.size = sizeof pss;
		break;
	case KW_OAEP:
		m.parameter = &oaep;
		m.size = sizeof oaep;
		break;
	}
	init begin = (init)at(functions, calls[operation][0]);
	operate run = (operate)at(functions, calls[operation][1]);
	if (begin == NULL || run == NULL) {
		result.rv = NOT_SUPPORTED;
		return result;
	}
	result.rv = begin(session, &m, key);
	if (result.rv == OK)
		result.rv = run(session, in_size ? in : &none, in_size, out, &result.value);
	if (result.rv == OK && result.value > size)
		result.rv = DEVICE_ERROR;
	return result;
}

// read_value copies CKA_VALUE of an object into out.
static kw_ulong read_value(void *functions, kw_ulong session, kw_ulong object, kw_byte *out, kw_ulong *size) {
	attribute value = {CKA_VALUE, out, *size};
	kw_ulong rv = ((get_attributes)at(functions, GET_ATTRIBUTE_VALUE))(session, object, &value, 1);
	if (rv == OK && value.size > *size)
		rv = DEVICE_ERROR;
	*size = value.size;
	return rv;
}

kw_result kw_agree(void *functions, kw_ulong session, kw_ulong key, kw_ulong type,
	kw_byte *peer, kw_ulong peer_size, kw_byte *out, kw_ulong size) {
	struct {
		kw_ulong kdf, shared_size;
		kw_byte *shared;
		kw_ulong public_size;
		kw_byte *public;
	} ecdh = {CKD_NULL, 0, NULL, peer_size, peer};
	mechanism m = {type, &ecdh, sizeof ecdh};
	kw_ulong class = CKO_SECRET_KEY, key_type = CKK_GENERIC_SECRET, object = 0, destroyed;
	kw_byte yes = 1, no = 0;
	attribute template[] = {
		{CKA_CLASS, &class, sizeof class},
		{CKA_KEY_TYPE, &key_type, sizeof key_type},
		{CKA_TOKEN, &no, 1},
		{CKA_SENSITIVE, &no, 1},
		{CKA_EXTRACTABLE, &yes, 1},
		{CKA_VALUE_LEN, &size, sizeof size},
	};
	derive_key derive = (derive_key)at(functions, DERIVE_KEY);
	kw_result result = {NOT_SUPPORTED, size};

	if (derive == NULL)
		return result;
	result.rv = derive(session, &m, key, template, sizeof template / sizeof *template, &object);
	if (result.rv != OK)
		return result;
	result.rv = read_value(functions, session, object, out, &result.value);
	destroyed = ((destroy_object)at(functions, DESTROY_OBJECT))(session, object);
	if (result.rv == OK)
		result.rv = destroyed;
	return result;
}

kw_result kw_create(void *functions, kw_ulong session, kw_byte *template, kw_ulong size) {
	enum { LIMIT = 32, HEAD = 2 * sizeof(kw_ulong) };
	attribute attributes[LIMIT];
	kw_ulong count = 0;
	create_object create = (create_object)at(functions, CREATE_OBJECT);
	kw_result result = {NOT_SUPPORTED, 0};

	if (create == NULL)
		return result;
	for (kw_byte *end = template + size; template < end; count++) {
		kw_ulong *head = (kw_ulong *)template;
		if (count == LIMIT) {
			result.rv = ARGUMENTS_BAD;
			return result;
		}
		attributes[count] = (attribute){head[0], template + HEAD, head[1]};
		template += HEAD + (head[1] + 7) / 8 * 8;
	}
	result.rv = create(session, attributes, count, &result.value);
	return result;
}
