package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/keywright/keywright/hsm"
)

// table prints aligned columns.
type table struct{ *tabwriter.Writer }

func newTable(out io.Writer) table { return table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)} }

func (t table) row(cells ...string) {
	fmt.Fprintln(t, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

// printReport prints all that a probe found out about one token.
func printReport(out io.Writer, r hsm.TestReport) error {
	t := newTable(out)
	t.row("module", r.Module)
	t.row("library", fmt.Sprintf("%s, %s %s, PKCS#11 %s", r.Library.Manufacturer, r.Library.Description, r.Library.Version, r.Library.Cryptoki))
	t.row("token", fmt.Sprintf("%q, serial %s, %s, %s", r.Token.Label, r.Token.Serial, r.Token.Manufacturer, r.Token.Model))
	t.row("profile", r.Profile+": "+r.Kind().Title)
	t.row()
	t.row("ALGORITHM", "CLAIMED", "WORKS")
	for _, a := range r.Found.Algorithms {
		t.row(a.Name, yesNo(a.Claimed), yesNo(a.Works), a.Detail)
	}
	t.row()
	t.row("ROOT KEY BY", "CLAIMED", "WORKS")
	for _, m := range r.Found.RootWrap {
		t.row(m.Name, yesNo(m.Claimed), yesNo(m.Works), rootRemark(r, m.Name, m.Works, m.Detail))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	printBehaviour(t, r)
	printUse(t, r)
	printKnown(t, r.Kind())
	return t.Flush()
}

// rootRemark says what Keywright makes of a way to protect a root key.
func rootRemark(r hsm.TestReport, name string, works bool, detail string) string {
	switch {
	case name == r.Use.RootWrap:
		return "used"
	case works && name == hsm.MechanismAESGCMHSMIV.String():
		return "Keywright cannot use this yet"
	}
	return detail
}

func printBehaviour(t table, r hsm.TestReport) {
	t.row()
	t.row("BEHAVIOUR", "SEEN")
	for _, b := range behaviour(r) {
		t.row(b.name, b.seen)
	}
}

type seen struct{ name, seen string }

// behaviour lists what was seen beside algorithms.
func behaviour(r hsm.TestReport) []seen {
	f := r.Found
	trait := func(yes bool, detail string) string {
		if detail == "" {
			return yesNo(yes)
		}
		return yesNo(yes) + ": " + detail
	}
	rows := []seen{
		{"session objects", trait(f.SessionObjects.Yes, f.SessionObjects.Detail)},
		{"random numbers", trait(f.Random.Yes, f.Random.Detail)},
		{"RSA-OAEP with", orNone(f.OAEPHashes)},
	}
	if f.GCM != nil {
		rows = append(rows, seen{"AES-GCM IV", f.GCM.IV}, seen{"AES-GCM without IV", f.GCM.MissingIV},
			seen{"AES-GCM bad tag", f.GCM.BadTag}, seen{"AES-GCM size query", trait(f.GCM.AskSize.Yes, f.GCM.AskSize.Detail)})
	}
	if f.KeyWrap != nil {
		rows = append(rows, seen{"AES-KW of bytes", trait(f.KeyWrap.Encrypt.Yes, f.KeyWrap.Encrypt.Detail)},
			seen{"AES-KW of objects", trait(f.KeyWrap.Wrap.Yes, f.KeyWrap.Wrap.Detail)}, seen{"AES-KW CKA_VALUE_LEN", f.KeyWrap.ValueLen})
	}
	return append(rows,
		seen{"two objects of one id", trait(f.DuplicateIDs.Yes, f.DuplicateIDs.Detail)},
		seen{"origin of keys", fmt.Sprintf("local %s, never extractable %s, always sensitive %s",
			yesNo(f.Origin.Local), yesNo(f.Origin.NeverExtractable), yesNo(f.Origin.AlwaysSensitive))},
		seen{"sessions", sessions(f)})
}

func sessions(f hsm.TestFindings) string {
	text := fmt.Sprintf("%d at once", f.Sessions.Opened)
	if f.Sessions.Detail != "" {
		text += ", then " + f.Sessions.Detail
	} else {
		text += ", no more were tried"
	}
	if f.Sessions.Stated > 0 {
		text += fmt.Sprintf("; the token states %d", f.Sessions.Stated)
	}
	return text
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func printUse(t table, r hsm.TestReport) {
	t.row()
	t.row("KEYWRIGHT WOULD USE IT FOR")
	if r.Use.RootWrap == "" {
		t.row("SOFTWARE keys", "no: this token cannot hold the root key")
	} else {
		t.row("SOFTWARE keys", "yes, under a root key by "+r.Use.RootWrap)
	}
	t.row("HSM keys", fmt.Sprintf("%d of %d algorithms, those that work above", len(r.Use.Keys), len(r.Found.Algorithms)))
	if r.Use.Signer == "" {
		t.row("audit key", "no: it would be sealed in the store")
	} else {
		t.row("audit key", r.Use.Signer)
	}
}

// printKnown prints what no probe can find out, with its source.
func printKnown(t table, p hsm.Profile) {
	t.row()
	t.row("KNOWN OF IT")
	known := func(name, fact, source string) {
		t.row(name, fmt.Sprintf("%s (%s)", strings.TrimRight(fact, "."), source))
	}
	known("PIN", p.PIN.Is, p.PIN.From)
	known("initialise arguments", string(p.InitArgs.Is), p.InitArgs.From)
	known("changes of objects", p.Changes.Is, p.Changes.From)
	for _, note := range p.Notes {
		known("note", note.Is, note.From)
	}
}

// printComparison prints reports side by side: a row for each capability.
func printComparison(out io.Writer, names []string, reports []hsm.TestReport) error {
	t := newTable(out)
	t.row(append([]string{"CAPABILITY"}, names...)...)
	each := func(name string, cell func(hsm.TestReport) string) {
		row := []string{name}
		for _, r := range reports {
			row = append(row, cell(r))
		}
		t.row(row...)
	}
	each("profile", func(r hsm.TestReport) string { return r.Profile })
	for _, a := range reports[0].Found.Algorithms {
		each(a.Name, func(r hsm.TestReport) string { return algorithmCell(r, a.Name) })
	}
	for _, m := range reports[0].Found.RootWrap {
		each("root key by "+m.Name, func(r hsm.TestReport) string { return rootCell(r, m.Name) })
	}
	each("RSA-OAEP with", func(r hsm.TestReport) string { return strings.ReplaceAll(orNone(r.Found.OAEPHashes), ", ", " ") })
	each("session objects", func(r hsm.TestReport) string { return yesNo(r.Found.SessionObjects.Yes) })
	each("two objects of one id", func(r hsm.TestReport) string { return yesNo(r.Found.DuplicateIDs.Yes) })
	each("SOFTWARE keys", func(r hsm.TestReport) string { return yesNo(r.Use.RootWrap != "") })
	each("HSM keys", func(r hsm.TestReport) string { return fmt.Sprintf("%d kinds", len(r.Use.Keys)) })
	each("audit key in the token", func(r hsm.TestReport) string { return yesNo(r.Use.Signer != "") })
	return t.Flush()
}

func algorithmCell(r hsm.TestReport, name string) string {
	for _, a := range r.Found.Algorithms {
		switch {
		case a.Name != name:
		case a.Works:
			return "yes"
		case a.Claimed:
			return "claims only"
		}
	}
	return "-"
}

func rootCell(r hsm.TestReport, name string) string {
	if name == r.Use.RootWrap {
		return "used"
	}
	for _, m := range r.Found.RootWrap {
		if m.Name == name && m.Works {
			return "works"
		}
	}
	return "-"
}
