// Command neon writes the assembly of package kernel for arm64, and the Go
// declarations that go with it. See the README in the folder above.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/tensorpress/tensorpress/internal/kernel/gen/calls"
)

func main() {
	out := flag.String("out", "", "write assembly to this `file`")
	stubs := flag.String("stubs", "", "write declarations to this `file`")
	file := flag.String("calls", "", "write calls of the assembly to this `file`")
	flag.Parse()
	a := &assembly{}
	a.widenBF16()
	a.narrowBF16()
	a.widenF16()
	a.narrowF16()
	a.divide()
	a.multiply()
	a.roundInts()
	a.castSmall()
	a.decodeInts()
	a.decodeSmall()
	a.scaleBy()
	a.scaleFrom()
	for _, raw := range []form{bf16, f32} {
		a.ranges(raw)
		a.absMax(raw)
		a.encodeInts(raw, false)
		a.encodeInts(raw, true)
		a.encodeSmall(raw, false)
		a.encodeSmall(raw, true)
		a.encodePacked(raw)
		a.errors(raw)
	}
	a.signs()
	a.packFours("packFours", false)
	a.packFours("packFoursHigh", true)
	a.packTwos()
	a.merge()
	a.split()
	a.splitFours("splitFours", false)
	a.splitFours("splitFoursHigh", true)
	a.spans()
	a.rotations()
	a.bookSums()
	a.bookCodes()
	a.decodeIntBytes()
	a.decodeFloatBytes()
	a.decodePacked()
	a.lookUp()
	a.roundBF16()
	a.roundF16()
	a.project("project", false)
	a.project("projectFused", true)
	a.collect()
	a.collectBF16()
	a.matrixProduct("product", false)
	a.matrixProduct("productFused", true)
	a.addSums()
	a.sums("add", "VFMLA")
	a.sums("subtract", "VFMLS")
	for name, text := range map[string]string{*out: a.source(), *stubs: a.declarations()} {
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if err := calls.Write(*file, calls.Set{Name: "NEON", Lanes: 4, Has: a.made}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
