package selftest

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm/internal/algorithm"
	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// sessionObjects makes an AES key, or else an RSA one, that the token does not keep.
func (t *Tester) sessionObjects() Trait {
	if t.options.TokenObjects {
		return Trait{Detail: "not tried: keys of this test were token objects"}
	}
	tried := ""
	for _, name := range []string{algorithm.AES256GCM, "HMAC_SHA256", algorithm.ECDSAP256, "RSA_OAEP_2048_SHA256"} {
		row, _ := algorithm.Lookup(name)
		for _, r := range row.Recipes {
			if !t.has(r.Generate) {
				continue
			}
			_, err := t.make(row, r)
			if err == nil {
				return Trait{Yes: true}
			}
			tried = says(err)
			t.settle(err)
		}
	}
	return Trait{Detail: tried}
}

func (t *Tester) random() Trait {
	first, err := t.session.Random(32)
	if err != nil {
		return Trait{Detail: says(err)}
	}
	second, err := t.session.Random(32)
	if err != nil {
		return Trait{Detail: says(err)}
	}
	if len(first) != 32 || bytes.Equal(first, second) || bytes.Equal(first, make([]byte, 32)) {
		return Trait{Detail: "not random"}
	}
	return Trait{Yes: true}
}

// gcm looks at the corners of AES-GCM.
func (t *Tester) gcm() *GCM {
	row, _ := algorithm.Lookup(algorithm.AES256GCM)
	if len(row.RecipesFor(t.mechanisms)) == 0 {
		return nil
	}
	key, err := t.make(row, row.Recipes[0])
	if err != nil {
		return nil
	}
	return &GCM{
		IV:        t.gcmIV(key.private),
		MissingIV: t.missingIV(key.private),
		BadTag:    t.badTag(key.private),
		AskSize:   t.askSize(key.private),
	}
}

// gcmIV tells whose IV is used. An HSM that makes its own wants zeros in its place.
func (t *Tester) gcmIV(key cryptoki.Handle) string {
	const room = 16 // of an IV after the tag
	plaintext, iv := random(16), make([]byte, cryptoki.IVSize)
	ciphertext, err := t.session.Encrypt(key, cryptoki.GCM(iv, nil), plaintext, len(plaintext)+cryptoki.TagSize+room)
	switch {
	case err != nil:
		t.settle(err)
		return says(err)
	case len(ciphertext) > len(plaintext)+cryptoki.TagSize:
		return "appended"
	case !bytes.Equal(iv, make([]byte, cryptoki.IVSize)):
		return "parameter"
	}
	return "ours"
}

// missingIV encrypts twice without an IV.
func (t *Tester) missingIV(key cryptoki.Handle) string {
	plaintext := random(16)
	var made [2][]byte
	for i := range made {
		var err error
		made[i], err = t.session.Encrypt(key, cryptoki.GCMWithoutIV(nil), plaintext, len(plaintext)+2*cryptoki.TagSize)
		if err != nil {
			t.settle(err)
			return "refused with " + says(err)
		}
	}
	if bytes.Equal(made[0], made[1]) {
		return "accepted, and the IV is a constant one"
	}
	return "accepted, and the IV is a new one each time"
}

func (t *Tester) badTag(key cryptoki.Handle) string {
	iv := random(cryptoki.IVSize)
	ciphertext, err := t.session.Encrypt(key, cryptoki.GCM(iv, nil), random(16), 16+cryptoki.TagSize)
	if err != nil {
		t.settle(err)
		return "not tried: " + says(err)
	}
	ciphertext[len(ciphertext)-1] ^= 1
	_, err = t.session.Decrypt(key, cryptoki.GCM(iv, nil), ciphertext, len(ciphertext))
	t.settle(err)
	return says(err)
}

func (t *Tester) askSize(key cryptoki.Handle) Trait {
	ciphertext, err := t.session.EncryptAskingSize(key, random(cryptoki.IVSize), random(16))
	if err == nil && len(ciphertext) == 16+cryptoki.TagSize {
		return Trait{Yes: true}
	}
	t.settle(err)
	// A failed query leaves the operation active in some modules: end it.
	_, again := t.session.Encrypt(key, cryptoki.GCM(random(cryptoki.IVSize), nil), random(16), 16+cryptoki.TagSize)
	t.settle(again)
	return Trait{Detail: says(err)}
}

// keyWrap tries CKM_AES_KEY_WRAP as a cipher and on key objects.
func (t *Tester) keyWrap() *KeyWrap {
	if !t.has(pkcs11.CKM_AES_KEY_WRAP) || !t.has(pkcs11.CKM_AES_KEY_GEN) {
		return nil
	}
	return &KeyWrap{Encrypt: t.wrapBytes(), Wrap: t.wrapObject(), ValueLen: t.unwrapValueLen()}
}

// aes makes an AES-256 key with the given uses.
func (t *Tester) aes(extractable bool, uses ...uint) (cryptoki.Handle, error) {
	key, err := t.makeOf(pkcs11.CKM_AES_KEY_GEN, nil, append(secretTemplate(pkcs11.CKK_AES, extractable, uses...),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32)))
	t.settle(err)
	return key.private, err
}

func secretTemplate(keyType uint, extractable bool, uses ...uint) []*pkcs11.Attribute {
	id := newID()
	template := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, keyType),
		pkcs11.NewAttribute(pkcs11.CKA_ID, id[:]),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, !extractable),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, extractable),
	}
	for _, use := range uses {
		template = append(template, pkcs11.NewAttribute(use, true))
	}
	return template
}

func (t *Tester) wrapBytes() Trait {
	key, err := t.aes(false, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT)
	if err != nil {
		return Trait{Detail: says(err)}
	}
	secret := random(32)
	wrapped, err := t.session.Encrypt(key, cryptoki.Plain(pkcs11.CKM_AES_KEY_WRAP), secret, 48)
	if err != nil {
		t.settle(err)
		return Trait{Detail: says(err)}
	}
	opened, err := t.session.Decrypt(key, cryptoki.Plain(pkcs11.CKM_AES_KEY_WRAP), wrapped, len(wrapped))
	if err != nil || len(wrapped) != 40 || !bytes.Equal(opened, secret) {
		t.settle(err)
		return Trait{Detail: "does not open again: " + says(err)}
	}
	wrapped[0] ^= 1
	if _, err := t.session.Decrypt(key, cryptoki.Plain(pkcs11.CKM_AES_KEY_WRAP), wrapped, len(wrapped)); err == nil {
		return Trait{Detail: errForgery.Error()}
	}
	return Trait{Yes: true}
}

func (t *Tester) wrapObject() Trait {
	wrapping, inner, err := t.wrapPair()
	if err != nil {
		return Trait{Detail: says(err)}
	}
	wrapped, err := t.session.Wrap(pkcs11.CKM_AES_KEY_WRAP, wrapping, inner)
	if err != nil {
		t.settle(err)
		return Trait{Detail: says(err)}
	}
	if len(wrapped) != 40 {
		return Trait{Detail: fmt.Sprintf("%d bytes, want 40", len(wrapped))}
	}
	return Trait{Yes: true}
}

func (t *Tester) wrapPair() (wrapping, inner cryptoki.Handle, err error) {
	if wrapping, err = t.aes(false, pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP); err != nil {
		return 0, 0, err
	}
	inner, err = t.aes(true, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT)
	return wrapping, inner, err
}

// unwrapValueLen tells what the token thinks of CKA_VALUE_LEN at C_UnwrapKey.
func (t *Tester) unwrapValueLen() string {
	wrapping, inner, err := t.wrapPair()
	if err != nil {
		return says(err)
	}
	wrapped, err := t.session.Wrap(pkcs11.CKM_AES_KEY_WRAP, wrapping, inner)
	if err != nil {
		t.settle(err)
		return says(err)
	}
	unwrap := func(more ...*pkcs11.Attribute) error {
		template := t.temporary(append(secretTemplate(pkcs11.CKK_AES, true, pkcs11.CKA_ENCRYPT), more...))
		key, err := t.session.Unwrap(pkcs11.CKM_AES_KEY_WRAP, wrapping, wrapped, template)
		if err == nil {
			t.made = append(t.made, key)
		}
		t.settle(err)
		return err
	}
	with, without := unwrap(pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32)), unwrap()
	switch {
	case with == nil && without == nil:
		return "any"
	case with == nil:
		return "required"
	case without == nil:
		return "refused"
	}
	return says(without)
}

// anyRow is the first of the rows whose keys the token can make.
func (t *Tester) anyRow() (row *algorithm.Algorithm, recipe algorithm.Recipe, ok bool) {
	for _, row := range algorithm.All() {
		for _, r := range row.RecipesFor(t.mechanisms) {
			if key, err := t.make(row, r); err == nil && key != (pair{}) {
				return row, r, true
			}
		}
	}
	return nil, algorithm.Recipe{}, false
}

// duplicateIDs makes two keys of one kind with one CKA_ID.
func (t *Tester) duplicateIDs() Trait {
	row, r, ok := t.anyRow()
	if !ok {
		return Trait{Detail: "not tried: no key can be made"}
	}
	id := newID()
	for i := range 2 {
		r.Implied = t.options.ImpliedUses
		public, private := row.Templates(id, label, r)
		if _, err := t.makeOf(r.Generate, public, private); err != nil {
			t.settle(err)
			if i == 0 {
				return Trait{Detail: "not tried: " + says(err)}
			}
			return Trait{Detail: "refused with " + says(err)}
		}
	}
	found, err := t.session.Search(3, pkcs11.NewAttribute(pkcs11.CKA_CLASS, row.Object(id).Class), pkcs11.NewAttribute(pkcs11.CKA_ID, id[:]))
	switch {
	case err != nil:
		return Trait{Detail: says(err)}
	case len(found) == 2:
		return Trait{Yes: true}
	}
	return Trait{Detail: fmt.Sprintf("%d of two are there: one replaced the other", len(found))}
}

// origin asks a key what the token says about it.
func (t *Tester) origin() Origin {
	row, r, ok := t.anyRow()
	if !ok {
		return Origin{}
	}
	key, err := t.make(row, r)
	if err != nil {
		return Origin{}
	}
	says := func(attribute uint) bool {
		yes, err := t.session.True(key.private, attribute)
		t.settle(err)
		return err == nil && yes
	}
	return Origin{says(pkcs11.CKA_LOCAL), says(pkcs11.CKA_NEVER_EXTRACTABLE), says(pkcs11.CKA_ALWAYS_SENSITIVE)}
}

// sessions opens sessions until there are no more, or enough.
func (t *Tester) sessions() SessionLimit {
	limit := SessionLimit{Stated: t.connection.Token.MaxSessions}
	var open []*cryptoki.Session
	defer func() {
		for _, s := range open {
			s.Close()
		}
	}()
	const ours = 2 // the login's and the test's
	for len(open)+ours < MaxSessions {
		s, err := t.connection.Fresh()
		if err != nil {
			limit.Detail = says(err)
			break
		}
		open = append(open, s)
	}
	limit.Opened = len(open) + ours
	return limit
}

// rootWraps judges the ways to protect a root key by what was seen.
func rootWraps(r Report, has func(uint) bool) []Mechanism {
	works := func(name string) bool {
		return slices.ContainsFunc(r.Algorithms, func(a Algorithm) bool { return a.Name == name && a.Works })
	}
	gcm := Mechanism{Name: "aes-gcm", Claimed: has(pkcs11.CKM_AES_GCM), Works: works(algorithm.AES256GCM)}
	theirs := Mechanism{Name: "aes-gcm-hsm-iv", Claimed: gcm.Claimed, Works: r.GCM != nil && r.GCM.IV == "parameter"}
	switch {
	case r.GCM != nil && r.GCM.IV == "appended":
		theirs.Detail = "the IV follows the tag, which Keywright does not use"
	case gcm.Claimed && !theirs.Works:
		theirs.Detail = "the token takes our IV, or none"
	}
	kw := Mechanism{Name: "aes-kw", Claimed: has(pkcs11.CKM_AES_KEY_WRAP)}
	if r.KeyWrap != nil {
		kw.Works = r.KeyWrap.Encrypt.Yes
		if !kw.Works && r.KeyWrap.Wrap.Yes {
			kw.Detail = "of key objects only, which Keywright does not use"
		}
	}
	authenticates := works("HMAC_SHA256") || works(algorithm.ECDSAP256)
	oaep := Mechanism{Name: "rsa-oaep", Claimed: has(pkcs11.CKM_RSA_PKCS_OAEP), Works: len(r.OAEPHashes) > 0 && authenticates}
	if len(r.OAEPHashes) > 0 && !authenticates {
		oaep.Detail = "no MAC or signature in the token, to go with it"
	}
	return []Mechanism{gcm, theirs, kw, oaep}
}
