package checkpoint

import (
	"fmt"
	"strings"
)

// Cosign returns the note with the witness's cosignatures, which are among the
// signature lines that it answered with; what else is there is left out.
// ErrSignature: there is none that verifies.
func Cosign(signed, lines []byte, witness Key) ([]byte, error) {
	if witness.algorithm != Cosignature {
		return nil, fmt.Errorf("%w: %s is no key of a witness, whose signature type is 0x04", ErrForm, witness)
	}
	c, err := Peek(signed)
	if err != nil {
		return nil, err
	}
	answer := append([]byte(c.Text()+"\n"), lines...)
	n, err := openNote(answer, witness)
	if err != nil {
		return nil, err
	}
	cosigned := string(signed)
	for _, s := range n.Sigs {
		if line := fmt.Sprintf("— %s %s\n", s.Name, s.Base64); !strings.Contains(cosigned, line) {
			cosigned += line
		}
	}
	return []byte(cosigned), nil
}
