package convert_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/fixture"
)

// TestModesEqualConvertToQuant: a script that calls one of its modes would get
// another file, or one where convert_to_quant writes none.
func TestModesEqualConvertToQuant(t *testing.T) {
	const folder = "../../testdata/golden/modes"
	for _, row := range fixture.Tsv(t, filepath.Join(folder, "modes.tsv")) {
		dest := filepath.Join(t.TempDir(), "out.safetensors")
		options := strings.Split(strings.ReplaceAll(row[1], "FOLDER", folder), " ")
		err := runCTQ(t.Context(), append(options, "-i", filepath.Join(folder, row[0]+".safetensors"), "-o", dest), fixture.Resources{})
		none := strings.HasPrefix(row[2], "status")
		switch {
		case none != (err != nil):
			t.Errorf("%s %s: %v, convert_to_quant: %s", row[0], row[1], err, row[2])
		case !none && fixture.FileHash(t, dest) != row[2]:
			t.Errorf("%s %s: another file", row[0], row[1])
		}
	}
}
