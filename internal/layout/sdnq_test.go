package layout

import (
	"fmt"
	"testing"

	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/sdnqconfig"
)

// TestConfigsKnowEverySetting: a setting whose key SDNQ's config does not know, or
// knows with another default, would be lost where the config is written.
func TestConfigsKnowEverySetting(t *testing.T) {
	known := sdnqconfig.Default().Settings.Object()
	for _, ours := range codec.Default().ConfigKeys() {
		theirs, ok := known.Get(ours.Key)
		if !ok || ours.Key != "weights_dtype" && fmt.Sprint(theirs) != fmt.Sprint(ours.Value) {
			t.Errorf("%s is %v by default, in a config %v, %v", ours.Key, ours.Value, theirs, ok)
		}
	}
}
