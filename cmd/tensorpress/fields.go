package main

import (
	"reflect"
	"regexp"
	"strings"
	"sync"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/report"
)

// fieldOf finds a field of the library's options as its texts name it: in
// backquotes, after the options of its command where that is another command.
var fieldOf = regexp.MustCompile("`(?:([A-Z][a-z]+)Options\\.)?([A-Z]\\w*[a-z]\\w*)`")

// inFlags puts flags where a text of the library names fields of its options.
func inFlags(text string) string {
	if !strings.Contains(text, "`") {
		return text
	}
	return fieldOf.ReplaceAllStringFunc(text, func(found string) string {
		part := fieldOf.FindStringSubmatch(found)
		flag, ok := flagsOfFields()[strings.ToLower(part[2])]
		switch {
		case !ok: // a word of the source's
			return found
		case part[1] == "":
			return flag
		case part[2] == "StripPrefixes": // which is for models of all kinds
			return "tensorpress migrate SOURCE DEST " + flag
		}
		return "tensorpress " + strings.ToLower(part[1]) + " " + flag
	})
}

// flagsOfFields are the flags by the names of fields in lower case.
var flagsOfFields = sync.OnceValue(func() map[string]string {
	flags := map[string]string{}
	for _, o := range []any{tensorpress.Options{}, tensorpress.DequantizeOptions{}, tensorpress.TranscodeOptions{}, tensorpress.MigrateOptions{}, tensorpress.VerifyOptions{}} {
		for _, f := range reflect.VisibleFields(reflect.TypeOf(o)) {
			flags[strings.ToLower(f.Name)] = "--" + dashed(f.Name)
		}
	}
	for _, s := range codec.Fields() {
		flags[strings.ReplaceAll(s.Flag, "-", "")] = "--" + s.Flag
	}
	flags["rules"] = "--set"                  // which is repeated
	flags["stripprefixes"] = "--strip-prefix" // which is repeated
	flags["inputscales"] = "--input-scales"   // of convert_to_quant's command line
	return flags
})

var wordEnd = regexp.MustCompile("([a-z0-9])([A-Z])|([A-Z])([A-Z][a-z])")

// dashed is a field's name as flags are spelled.
func dashed(name string) string {
	return strings.ToLower(wordEnd.ReplaceAllString(name, "$1$3-$2$4"))
}

// speak puts flags into what a result says to people.
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
