package tensorpress

import (
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// layers lists what each package of ours may import: data flows one way.
// docs/architecture.md draws the same map.
var layers = map[string]string{
	"safetensors":         "",
	"dtype":               "internal/suggest safetensors",
	"internal/kernel":     "",
	"internal/suggest":    "",
	"internal/linalg":     "internal/kernel",
	"internal/pack":       "internal/kernel",
	"internal/pyjson":     "",
	"internal/usage":      "",
	"internal/pattern":    "",
	"quant":               "dtype internal/kernel internal/linalg internal/pack safetensors",
	"internal/stream":     "quant safetensors",
	"internal/openfiles":  "",
	"internal/stage":      "internal/openfiles internal/usage",
	"internal/sdnq":       "dtype internal/pyjson internal/suggest",
	"internal/preset":     "internal/sdnq internal/suggest",
	"internal/checkpoint": "internal/openfiles internal/pyjson internal/usage safetensors",
	"internal/codec":      "dtype internal/kernel internal/pyjson internal/suggest quant safetensors",
	"internal/layout":     "internal/checkpoint internal/codec internal/pyjson internal/sdnq internal/suggest quant safetensors",
	"internal/app":        "dtype internal/codec internal/suggest internal/usage quant safetensors",
	"internal/plan": "dtype internal/app internal/checkpoint internal/codec internal/layout internal/pattern " +
		"internal/preset internal/pyjson internal/sdnq internal/suggest internal/usage quant safetensors",
	"internal/ctq": "internal/checkpoint internal/codec internal/layout internal/pattern internal/plan internal/preset internal/pyjson " +
		"internal/suggest internal/usage safetensors",
	"": "dtype internal/app internal/checkpoint internal/codec internal/ctq internal/kernel internal/layout internal/pattern internal/plan " +
		"internal/preset internal/pyjson internal/sdnq internal/stage internal/stream internal/usage quant report safetensors",
	"report":          "",
	"cmd/tensorpress": "internal/suggest report",
	"bench":           "safetensors",
}

const module = "github.com/tensorpress/tensorpress"

// TestImportsFollowTheMap: an import against the flow makes the house hard to
// read, and a package that is not on the map is not in the documentation.
func TestImportsFollowTheMap(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	d := json.NewDecoder(bytes.NewReader(out))
	seen := 0
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen++
		checkImports(t, ours(p.ImportPath), p.Imports)
	}
	if seen != len(layers) {
		t.Errorf("%d packages, %d on the map", seen, len(layers))
	}
}

func checkImports(t *testing.T, name string, imports []string) {
	allowed, ok := layers[name]
	if !ok {
		t.Errorf("package %s is not on the map", name)
	}
	for _, path := range imports {
		if path == module && name == "cmd/tensorpress" {
			continue
		}
		if strings.HasPrefix(path, module) && !slices.Contains(strings.Fields(allowed), ours(path)) {
			t.Errorf("%s imports %s, which the map does not allow", name, ours(path))
		}
	}
}

func ours(path string) string { return strings.TrimPrefix(strings.TrimPrefix(path, module), "/") }
