package main

import (
	"reflect"
	"regexp"
	"strings"
	"sync"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/doctor"
	"github.com/tensorpress/tensorpress/report"
)

// fieldOf matches how the library's texts name a field of its options: in backquotes,
// and with the name of the options before it if they are another command's.
var fieldOf = regexp.MustCompile("`(?:([A-Z][a-z]+)Options\\.)?([A-Z]\\w*[a-z]\\w*)`")

// inFlags replaces fields of the library's options in a text by the flags for them.
func inFlags(text string) string {
	if !strings.Contains(text, "`") {
		return text
	}
	return fieldOf.ReplaceAllStringFunc(text, func(found string) string {
		part := fieldOf.FindStringSubmatch(found)
		flag, ok := flagsOfFields()[strings.ToLower(part[2])]
		switch {
		case !ok: // some other word in backquotes
			return found
		case part[1] == "":
			return flag
		case part[2] == "StripPrefixes": // for models of every kind, so the arguments are shown
			return "tensorpress migrate SOURCE DEST " + flag
		}
		return "tensorpress " + strings.ToLower(part[1]) + " " + flag
	})
}

// flagsOfFields maps field names, in lower case, to flags.
var flagsOfFields = sync.OnceValue(func() map[string]string {
	flags := map[string]string{}
	for _, o := range []any{tensorpress.Options{}, tensorpress.DequantizeOptions{}, tensorpress.TranscodeOptions{}, tensorpress.MigrateOptions{}, tensorpress.VerifyOptions{}, tensorpress.DiffOptions{}, tensorpress.HashOptions{}, tensorpress.SplitOptions{}, tensorpress.JoinOptions{}, doctor.Options{}} {
		for _, f := range reflect.VisibleFields(reflect.TypeOf(o)) {
			flags[strings.ToLower(f.Name)] = "--" + dashed(f.Name)
		}
	}
	for _, s := range codec.Fields() {
		flags[strings.ReplaceAll(s.Flag, "-", "")] = "--" + s.Flag
	}
	flags["rules"] = "--set"                  // repeated, so its name is singular
	flags["stripprefixes"] = "--strip-prefix" // repeated, so its name is singular
	flags["inputscales"] = "--input-scales"   // a flag of convert_to_quant's command line
	return flags
})

var wordEnd = regexp.MustCompile("([a-z0-9])([A-Z])|([A-Z])([A-Z][a-z])")

// dashed returns a field's name in the spelling of flags.
func dashed(name string) string {
	return strings.ToLower(wordEnd.ReplaceAllString(name, "$1$3-$2$4"))
}

// speak replaces fields by flags in the texts of a result.
func speak(result any) {
	switch r := result.(type) {
	case *report.Report:
		speakAll(r.Notes)
		for i := range r.Layers {
			r.Layers[i].Reason = inFlags(r.Layers[i].Reason)
		}
	case *report.Verification:
		speakAll(r.Notes)
		for i := range r.Problems {
			r.Problems[i].Problem = inFlags(r.Problems[i].Problem)
		}
	case *report.Diagnosis:
		speakAll(r.Notes)
	case *report.Assembly:
		speakAll(r.Notes)
	case *report.Difference:
		speakAll(r.Notes)
		for i := range r.Tensors {
			r.Tensors[i].Detail = inFlags(r.Tensors[i].Detail)
		}
	case *report.Inspection:
		for i := range r.Layers {
			r.Layers[i].Problem = inFlags(r.Layers[i].Problem)
		}
	}
}

func speakAll(texts []string) {
	for i, text := range texts {
		texts[i] = inFlags(text)
	}
}
