-- The Lua files that the program carries: compiled where its Lua is the one that compiled them, as text elsewhere.
-- check: unsanitized
-- (a library that is loaded before the sanitizer's)
local program = require "spec.support.program"

local compile = program.path:gsub("p2pd%-lua$", "compile")

describe("a file that is carried compiled", function()
  it("tells where an error is as its text does", function()
    local it = program.run { program.path, "-e", "require 'p2pd'.channel().send()" }
    assert.are.equal(1, it.status)
    assert.matches("p2pd/task%.lua:%d+:", it.err)
    local text = program.run { program.path, "-e", "require 'p2pd'.channel().send()", env = { P2PD_LUA = "lua" } }
    assert.are.equal(it.err:match "task%.lua:(%d+):", text.err:match "task%.lua:(%d+):")
  end)

  it("is compiled anew by another release of Lua", function()
    local folder <close> = program.folder()
    local other = folder:write("other.c", 'const char lua_ident[] = "$LuaVersion: another";\n')
    local library = other:gsub("c$", "so")
    assert.are.equal(0, program.run { "cc", "-shared", "-fPIC", "-o", library, other }.status)
    local it = program.run {
      program.path, "-e", "print(require 'p2pd'.address.parse 'x')", env = { LD_PRELOAD = library },
    }
    assert.are.equal(0, it.status, it.err)
    assert.matches("^nil\t", it.out)
  end)

  it("stops the build when it is wrong", function()
    local folder <close> = program.folder()
    local wrong = folder:write("wrong.lua", "local x =\n= 1\n")
    local it = program.run { compile, wrong, wrong .. "c" }
    assert.are.equal(1, it.status)
    assert.matches("wrong%.lua:2: unexpected symbol", it.err)
    it = program.run { compile, wrong .. "x", wrong .. "c" }
    assert.are.same({ 1, wrong .. "x: it cannot be read\n" }, { it.status, it.err })
  end)

  it("is what Lua makes of the text", function()
    local folder <close> = program.folder()
    local file = folder:write("right.lua", "return ...")
    assert.are.equal(0, program.run { compile, file, file .. "c" }.status)
    local bytes = assert(io.open(file .. "c", "rb")):read "a"
    local release, code = bytes:match "^(.-)%z(.*)$"
    assert.matches("^%$LuaVersion: Lua 5%.4", release)
    assert.are.equal(7, assert(load(code, "right", "b"))(7))
  end)
end)
