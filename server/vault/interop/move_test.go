package interop

import (
	"encoding/json"
	"os"
	"testing"
)

// kept is a key that OpenBao made, with what its two versions made.
type kept struct {
	Type       string   `json:"type"`
	Derived    bool     `json:"derived,omitempty"`
	Convergent bool     `json:"convergent_encryption,omitempty"`
	Ciphertext []string `json:"ciphertext,omitempty"`
	Signature  []string `json:"signature,omitempty"`
	HMAC       []string `json:"hmac,omitempty"`
	Backup     string   `json:"backup"`
}

// keptFile has keys that OpenBao 2.6.2 made for this test (with -update and a peer);
// they have never protected anything.
const keptFile = "testdata/openbao-2.6.2.json"

// movers are the keys that are moved: of all types, but RSA's larger ones.
func movers() (all []kept) {
	for _, kind := range keyTypes {
		if kind.name != "rsa-3072" && kind.name != "rsa-4096" {
			all = append(all, kept{Type: kind.name})
		}
		if kind.derives {
			all = append(all, kept{Type: kind.name, Derived: true})
		}
		if kind.derives && kind.encrypts {
			all = append(all, kept{Type: kind.name, Derived: true, Convergent: true})
		}
	}
	return all
}

// context is what every use of the key brings.
func (k kept) context() fields {
	if !k.Derived {
		return nil
	}
	return fields{"context": b64("tenant 7")}
}

func (k kept) can() (encrypt, sign bool) {
	for _, kind := range keyTypes {
		if kind.name == k.Type {
			return kind.encrypts, kind.signs
		}
	}
	return false, false
}

// fill makes the key on a server and uses both its versions.
func (k kept) fill(c *try) kept {
	c.Helper()
	body := with(movable, fields{"type": k.Type, "derived": k.Derived, "convergent_encryption": k.Convergent})
	if k.Type == "hmac" {
		body["key_size"] = 64
	}
	name := c.key(body)
	encrypts, signs := k.can()
	for range 2 {
		if encrypts {
			k.Ciphertext = append(k.Ciphertext, c.encrypt(name, k.context()))
		}
		if signs {
			k.Signature = append(k.Signature, c.signs(name, "", k.context()))
		}
		k.HMAC = append(k.HMAC, c.text(c.put("hmac/"+name, fields{"input": b64(text)}), "hmac"))
		c.put("keys/"+name+"/rotate", nil)
	}
	k.Backup = c.text(c.get("backup/"+name, nil), "backup")
	return k
}

// check wants that a key does what its original did.
func (k kept) check(c *try, name string) {
	c.Helper()
	read := c.get("keys/"+name, nil)
	c.has(read, "type", k.Type)
	c.has(read, "latest_version", 3)
	for _, ciphertext := range k.Ciphertext {
		c.decrypts(name, ciphertext, k.context())
	}
	for _, signature := range k.Signature {
		c.valid(name, with(fields{"input": b64(text), "signature": signature}, k.context()), true)
	}
	for _, hmac := range k.HMAC {
		c.valid(name, fields{"input": b64(text), "hmac": hmac}, true)
	}
	if k.Convergent && c.encrypt(name, with(k.context(), fields{"key_version": 2})) != k.Ciphertext[1] {
		c.Fatal("the same plaintext gives another ciphertext")
	}
	c.put("keys/"+name+"/rotate", nil)
	if encrypts, signs := k.can(); encrypts {
		c.decrypts(name, c.encrypt(name, k.context()), k.context())
	} else if signs {
		c.signs(name, "", k.context())
	}
}

func (k kept) name() string {
	switch {
	case k.Convergent:
		return k.Type + " convergent"
	case k.Derived:
		return k.Type + " derived"
	default:
		return k.Type
	}
}

// TestRestoreFromOpenBao restores what a real OpenBao backed up, through the API and by
// the command line.
func TestRestoreFromOpenBao(t *testing.T) {
	server := newTarget(t)
	if *update && server.peer {
		updateKept(newTry(t, server, server.clients()["openbao"]))
	}
	for _, k := range readKept(t) {
		t.Run(k.name(), func(t *testing.T) {
			t.Parallel()
			c := newTry(t, server, server.clients()["openbao"])
			name := c.fresh()
			c.put("restore/"+name, fields{"backup": k.Backup})
			k.check(c, name)
		})
	}
}

func updateKept(c *try) {
	c.Helper()
	var all []kept
	for _, k := range movers() {
		all = append(all, k.fill(c))
	}
	made, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		c.Fatal(err)
	}
	if err := os.WriteFile(keptFile, append(made, '\n'), 0o644); err != nil {
		c.Fatal(err)
	}
}

func readKept(t *testing.T) (all []kept) {
	t.Helper()
	text, err := os.ReadFile(keptFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &all); err != nil || len(all) != len(movers()) {
		t.Fatalf("%d keys instead of %d, %v", len(all), len(movers()), err)
	}
	return all
}
