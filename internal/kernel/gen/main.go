// Command gen writes the assembly of package kernel: one file for all
// instruction sets, and the Go declarations that go with it. See the README
// beside it.
package main

import (
	"flag"
	"fmt"
	"os"

	. "github.com/mmcloughlin/avo/build"
	"github.com/tensorpress/tensorpress/internal/kernel/gen/calls"
)

func main() {
	file := flag.String("calls", "", "write calls of the assembly to this `file`")
	ConstraintExpr("!purego")
	var sets []calls.Set
	for _, v := range []isa{{name: "AVX2"}, {name: "AVX512", wide: true}} {
		v.made = new([]string)
		v.widenBF16()
		v.widenF16()
		v.narrowBF16()
		v.narrowF16()
		v.scale(false)
		v.scale(true)
		v.roundInts()
		v.castSmall()
		v.decodeInts()
		v.decodeSmall()
		v.scaleBy()
		v.scaleFrom()
		v.packFours("packFours", 0x1001)
		v.packFours("packFoursHigh", 0x0110)
		v.packTwos()
		v.merge()
		v.split()
		v.splitFours("splitFours", false)
		v.splitFours("splitFoursHigh", true)
		v.decodeIntBytes()
		v.decodeFloatBytes()
		v.decodeFewBytes()
		v.decodePacked()
		v.lookUp()
		v.roundBF16()
		v.roundF16()
		v.spans()
		v.powerSteps()
		v.nvfp4Blocks()
		v.mxfp8Blocks()
		v.signs()
		v.rotations()
		v.codebooks()
		v.lines()
		v.scaleErrors(false)
		v.scaleErrors(true)
		v.leastErrors()
		v.wholeLines()
		if v.wide {
			v.ranks()
		} else {
			v.fitBooks()
			v.stripBF16()
			v.interleavedBF16()
		}
		v.project("project", false)
		v.project("projectFused", true)
		v.collect()
		v.addSums()
		v.projectBF16()
		v.collectBF16()
		v.addWide()
		v.leastBF16()
		v.sums("add", VADDPS)
		v.sums("subtract", VSUBPS)
		v.product("product", false)
		v.product("productFused", true)
		v.addProducts()
		for _, raw := range []form{bf16, f32} {
			v.ranges(raw)
			v.absMax(raw)
			for _, by := range []scaling{multiply, divide, divideFrom} {
				v.encodeInts(raw, by)
			}
			v.encodeSmall(raw, multiply)
			v.encodeSmall(raw, divide)
			v.encodePacked(raw, divide)
			v.encodePacked(raw, divideFrom)
			v.errors(raw)
			if !v.wide {
				v.sideBySide(raw)
			}
		}
		sets = append(sets, calls.Set{Name: v.name, Lanes: v.width() / 4, Has: *v.made})
	}
	Generate()
	if err := calls.Write(*file, sets...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
