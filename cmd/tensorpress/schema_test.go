package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/report"
)

var updateSchema = flag.Bool("update-schema", false, "write the schema of what --json prints anew")

const schemaPath = "../../docs/report.schema.json"

// lists are what --json prints of those.
var lists = map[string]reflect.Type{"Formats": reflect.TypeFor[[]tensorpress.FormatRow](), "Presets": reflect.TypeFor[[]tensorpress.PresetRow]()}

// object is a JSON object.
type object = map[string]any

// schema makes the schemas of Go types.
type schema struct {
	defs  object              // by the names of types
	about map[string]string   // comments, by Type and Type.Field
	enums map[string][]string // constants by their type
}

// of returns the schema of a type.
func (s *schema) of(t reflect.Type) object {
	switch {
	case t == reflect.TypeFor[report.Options](): // its keys are the layer's
		return object{"type": "object"}
	case s.enums[t.Name()] != nil:
		return object{"enum": s.enums[t.Name()]}
	}
	switch t.Kind() {
	case reflect.Struct:
		s.define(t)
		return object{"$ref": "#/$defs/" + t.Name()}
	case reflect.Slice:
		return object{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map: // of lists, of which an empty one is null
		one := s.of(t.Elem())
		if one["type"] == "array" {
			one = orNull(one)
		}
		return object{"type": "object", "additionalProperties": one}
	case reflect.Pointer:
		return orNull(s.of(t.Elem()))
	}
	return object{"type": kinds[t.Kind()]}
}

// orNull adds null to a type of JSON's own; a struct that is nil is not written.
func orNull(one object) object {
	if kind, ok := one["type"]; ok {
		one["type"] = []any{kind, "null"}
	}
	return one
}

var kinds = map[reflect.Kind]string{
	reflect.String: "string", reflect.Bool: "boolean", reflect.Int: "integer", reflect.Int64: "integer", reflect.Float64: "number",
}

// define adds a struct to the definitions.
func (s *schema) define(t reflect.Type) {
	if s.defs[t.Name()] != nil {
		return
	}
	def := object{"type": "object", "properties": object{}, "required": []string{}, "additionalProperties": false}
	s.defs[t.Name()] = def
	explain(def, s.about[t.Name()])
	s.fields(def, t, true)
}

// fields adds those of a struct to an object, and those of structs that are part of
// it; optional ones are not always there.
func (s *schema) fields(def object, t reflect.Type, always bool) {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case f.Anonymous && f.Type.Kind() == reflect.Pointer:
			s.fields(def, f.Type.Elem(), false)
		case f.Anonymous:
			s.fields(def, f.Type, always)
		default:
			one := s.of(f.Type)
			explain(one, s.about[t.Name()+"."+f.Name])
			def["properties"].(object)[name] = one
			if always && options != "omitempty" {
				def["required"] = append(def["required"].([]string), name)
			}
		}
	}
}

func explain(one object, about string) {
	if about != "" {
		one["description"] = about
	}
}

// read takes over the comments and the constants of a package's files.
func (s *schema) read(t *testing.T, pattern string) {
	paths, err := filepath.Glob(pattern)
	if err != nil || paths == nil {
		t.Fatalf("%s: %v", pattern, err)
	}
	for _, path := range paths {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			d, ok := d.(*ast.GenDecl)
			for i := 0; ok && i < len(d.Specs); i++ {
				switch one := d.Specs[i].(type) {
				case *ast.TypeSpec:
					s.comment(one, d.Doc)
				case *ast.ValueSpec:
					if kind, ok := one.Type.(*ast.Ident); ok && d.Tok == token.CONST {
						s.enums[kind.Name] = append(s.enums[kind.Name], strings.Trim(one.Values[0].(*ast.BasicLit).Value, `"`))
					}
				}
			}
		}
	}
}

func (s *schema) comment(one *ast.TypeSpec, doc *ast.CommentGroup) {
	s.about[one.Name.Name] = line(doc)
	of, ok := one.Type.(*ast.StructType)
	for i := 0; ok && i < len(of.Fields.List); i++ {
		f := of.Fields.List[i]
		for _, name := range f.Names {
			s.about[one.Name.Name+"."+name.Name] = line(f.Doc) + line(f.Comment)
		}
	}
}

// line is a comment in one line.
func line(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }

// made is the schema of all that --json prints.
func made(t *testing.T) []byte {
	s := &schema{object{}, map[string]string{}, map[string][]string{}}
	s.read(t, "../../report/[a-z]*[^t].go")
	s.read(t, "../../api.go")
	for _, v := range []reflect.Type{reflect.TypeFor[report.Report](), reflect.TypeFor[report.Outputs](), reflect.TypeFor[report.Verification](), reflect.TypeFor[report.Inspection](), reflect.TypeFor[report.Measurement](), reflect.TypeFor[report.Difference](), reflect.TypeFor[report.Assembly](), reflect.TypeFor[report.Finished](), reflect.TypeFor[report.Diagnosis]()} {
		s.of(v)
	}
	for name, list := range lists {
		s.defs[name] = s.of(list)
	}
	var any []object
	for _, name := range []string{"Report", "Outputs", "Verification", "Inspection", "Measurement", "Difference", "Assembly", "Finished", "Diagnosis", "Formats", "Presets"} {
		any = append(any, object{"$ref": "#/$defs/" + name})
	}
	text, err := json.MarshalIndent(object{
		"$schema":     "https://json-schema.org/draft/2020-12/schema",
		"title":       "What tensorpress prints with --json",
		"description": "A Report is from quantize, plan, dequantize, transcode and migrate, Outputs are from quantize and plan with --outputs, a Verification from verify, an Inspection from inspect, a Measurement from measure, a Difference from diff, an Assembly from split and join, a Finished from finish, a Diagnosis from doctor, and Formats and Presets are from the commands of these names.",
		"anyOf":       any, "$defs": s.defs,
	}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

// TestSchema: the schema has every field that is printed, and no other. With
// -update-schema it is written anew.
func TestSchema(t *testing.T) {
	want := made(t)
	if *updateSchema {
		if err := os.WriteFile(schemaPath, want, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(schemaPath)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what the types say, %v: go test ./cmd/tensorpress -run TestSchema -update-schema", schemaPath, err)
	}
}

// TestOutputsFitTheSchema: what the commands print is what the schema says, each of
// its own kind.
func TestOutputsFitTheSchema(t *testing.T) {
	source, err := filepath.Abs("../../testdata/minilm.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	path, err := filepath.Abs(schemaPath)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	list := "outputs:\n  - {dest: many.safetensors, force: true, measure: true}\n  - {dest: more.safetensors, layout: sdnq, keep: query, force: true}\n"
	if err := errors.Join(os.WriteFile("outputs.yaml", []byte(list), 0o666), os.Mkdir("plans", 0o777)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ kind, args string }{
		{"Report", "plan " + source + " --json"},
		{"Report", "quantize " + source + " out.safetensors --layout comfy --measure --json"},
		{"Report", "quantize " + source + " sdnq.safetensors --layout sdnq --dtype int8 --keep query --json"},
		{"Report", "transcode sdnq.safetensors comfy.safetensors --layout comfy --json"},
		{"Report", "migrate out.safetensors new.safetensors --quantization-metadata --json"},
		{"Report", "dequantize out.safetensors plain.safetensors --json"},
		{"Report", "plan sdnq.safetensors --json"},
		{"Verification", "verify out.safetensors --json"},
		{"Verification", "verify out.safetensors --for comfyui --source " + source + " --json"},
		{"Verification", "verify sdnq.safetensors --for comfyui --max-rel-mse 0 --source " + source + " --json"},
		{"Report", "plan " + source + " --budget 60% --json"},
		{"Report", "quantize " + source + " budget.safetensors --layout sdnq --target-bpw 16 --json"},
		{"Outputs", "quantize " + source + " --outputs outputs.yaml --json"},
		{"Outputs", "quantize " + source + " --outputs outputs.yaml --keep-going --report outputs.json --json"},
		{"Outputs", "plan " + source + " plans --outputs outputs.yaml --json"},
		{"Measurement", "measure " + source + " --json"},
		{"Measurement", "measure " + source + " --menu int8,asym_w4a8_int8 --preset none --layout comfy --json"},
		{"Inspection", "inspect out.safetensors --json"},
		{"Inspection", "inspect " + source + " --json"},
		{"Diagnosis", "doctor --json"},
		{"Inspection", "inspect out.safetensors --hash --json"},
		{"Report", "migrate out.safetensors new2.safetensors --quantization-metadata --report hashed.json --json"},
		{"Difference", "diff " + source + " out.safetensors --all --json"},
		{"Difference", "diff out.safetensors sdnq.safetensors --bytes --json"},
		{"Assembly", "join " + source + " joined.safetensors --json"},
		{"Assembly", "join model=" + source + " dry.safetensors --dry-run --json --report dry.json"},
		{"Report", "quantize " + sharded(t, source) + " parts --part 1/1 --json"},
		{"Finished", "finish parts --json"},
		{"Finished", "finish parts --json"},
		{"Formats", "formats --json"},
		{"Presets", "presets --json"},
	} {
		want, err := jsonschema.NewCompiler().Compile(path + "#/$defs/" + c.kind)
		if err != nil {
			t.Fatal(err)
		}
		var out, problems bytes.Buffer
		if status := run(strings.Fields(c.args), &out, &problems); status != 0 && status != 4 {
			t.Errorf("%s: %s", c.args, problems.String())
			continue
		}
		got, err := jsonschema.UnmarshalJSON(&out)
		if err == nil {
			err = want.Validate(got)
		}
		if err != nil {
			t.Errorf("%s: %v", c.args, err)
		}
	}
}

// sharded is a folder with a checkpoint.
func sharded(t *testing.T, file string) string {
	data, err := os.ReadFile(file)
	if err == nil {
		err = os.Mkdir("folder", 0o777)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join("folder", "model.safetensors"), data, 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
	return "folder"
}
