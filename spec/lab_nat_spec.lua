local nat = require "p2pd.lab.nat"
local router_options = require "p2pd.lab.options"

describe("lab.nat", function()
  local function refuses(part, ...)
    local value, message, code = ...
    assert.is_nil(value)
    assert.equal("EINVAL", code)
    assert.truthy(message:find("^EINVAL: "), message)
    assert(message:find(part, 1, true), ("'%s' is not in: %s"):format(part, message))
  end

  describe("texts", function()
    it("come back in their one form", function()
      for text, canonical in pairs {
        ["open"] = "open", ["open/na"] = "open", ["udp-firewall"] = "udp-firewall", ["blocked"] = "blocked",
        ["blocked/na"] = "blocked", ["blocked/equal"] = "blocked/equal", ["symmetric/random"] = "symmetric/random",
        ["port-restricted/equal"] = "port-restricted/equal", ["full-cone/preserving"] = "full-cone/preserving",
        ["symmetric/independent:3"] = "symmetric/independent:3", ["symmetric/independent"] = "symmetric/independent:1",
        ["restricted/dependent:-2"] = "restricted/dependent:-2",
        ["restricted/random@40000-50000"] = "restricted/random@40000-50000",
        ["symmetric/independent:7@1-65535"] = "symmetric/independent:7@1-65535", ["blocked@5-6"] = "blocked@5-6",
      } do
        assert.equal(canonical, nat.text(assert(nat.parse(text))))
        assert.equal(canonical, nat.text(nat.parse(canonical)))
      end
    end)

    it("have parts", function()
      assert.same({ type = "symmetric", delta = "independent", value = 3, first = 4, last = 5 },
        nat.parse "symmetric/independent:3@4-5")
      assert.same({ type = "open" }, nat.parse "open")
    end)

    it("are refused with a cause and a cure", function()
      refuses("unknown type 'symetric' (known: open, udp-firewall,", nat.parse "symetric/random")
      refuses("unknown type ''", nat.parse "")
      refuses("unknown type ''", nat.parse "/random")
      refuses("unknown delta 'rnd' (known: na, equal,", nat.parse "symmetric/rnd")
      refuses("unknown delta ''", nat.parse "symmetric/")
      refuses("says not how it chooses ports", nat.parse "symmetric")
      refuses("cannot be 'na'", nat.parse "symmetric/na")
      refuses("write 'open'", nat.parse "open/equal")
      refuses("write 'udp-firewall'", nat.parse "udp-firewall@5-6")
      refuses("only independent and dependent have", nat.parse "symmetric/random:3")
      refuses("only independent and dependent have", nat.parse "open:3")
      refuses("but not 0", nat.parse "symmetric/independent:0")
      refuses("the value ''", nat.parse "symmetric/independent:")
      refuses("the value '1.5'", nat.parse "symmetric/independent:1.5")
      refuses("the value '99999'", nat.parse "symmetric/independent:99999")
      for _, range in ipairs { "", "5", "5-", "-5", "0-5", "5-65536", "6-5", "5-6-7", "a-b", "5-6@7-8" } do
        refuses("FIRST-LAST", nat.parse("symmetric/random@" .. range))
      end
      refuses("not a table", nat.parse {})
      refuses("not nil", nat.parse(nil))
    end)
  end)

  describe("options", function()
    it("are complete, and stay as they are when they are checked again", function()
      for _, given in ipairs {
        "symmetric/random", {}, { nat = "open" },
        {
          nat = "symmetric/independent", udp = "full-cone/equal", tcp = { filtering = "none", ports = "5-6" },
          addresses = 3, pairing = "arbitrary", hairpin = false, noise = 0.5, table = 9, time_scale = 0.01, seed = 7,
          ipv6 = "open", open_ports = { 80 }, delay_ms = 10, jitter_ms = 1.5, loss = 0.1, duplicate = 1, reorder = 0,
          rate_mbit = 8, up = false, portmap = true, carrier = "symmetric/random", uninvited = "reset",
          timeout_s = 120, transitory_s = 4, mapping = "address-dependent", filtering = "endpoint-independent",
          allocation = "dependent", value = -4, ports = { 1000, 2000 },
        },
      } do
        local options = assert(router_options.router(given))
        assert.same(options, router_options.router(options))
      end
      local options = router_options.router { udp = "symmetric/independent", carrier = {} }
      assert.equal("port-restricted/equal", options.nat)
      assert.same({ nat = "symmetric/independent:1" }, options.udp)
      assert.equal("port-restricted/equal", options.carrier.nat)
      assert.is_true(options.up)
      assert.equal(0, options.delay_ms)
    end)

    it("may come with numbers as JSON has them", function()
      local options = assert(router_options.router { addresses = 2.0, seed = 5.0, ports = { 5.0, 6.0 }, value = 3.0 })
      assert.equal("integer", math.type(options.addresses))
      assert.same({ 5, 6 }, options.ports)
    end)

    it("are refused when nobody knows them, or when they cannot be", function()
      refuses("no option 'delya_ms' (known: addresses, allocation, carrier, delay_ms,", router_options.router {
        delya_ms = 1 })
      refuses("no option '1'", router_options.router { "symmetric/random" })
      refuses("unknown field 'loss' (known: allocation,", router_options.router { udp = { loss = 0 } })
      refuses("unknown type 'round'", router_options.router { nat = "round" })
      refuses("unknown type 'round'", router_options.router { tcp = "round" })
      refuses("unknown type 'round'", router_options.router { carrier = "round" })
      refuses("not a table", router_options.router { nat = {} })
      refuses("not 5", router_options.router(5))
      refuses("'udp' is a NAT's text or a table, not 5", router_options.router { udp = 5 })
      refuses("'loss' is 2; it has to be a number from 0 to 1", router_options.router { loss = 2 })
      refuses("'loss' is 'a'", router_options.router { loss = "a" })
      refuses("'loss' is ", router_options.router { loss = 0 / 0 })
      refuses("'addresses' is 9; it has to be a whole number from 1 to 8", router_options.router { addresses = 9 })
      refuses("'addresses' is 1.5", router_options.router { addresses = 1.5 })
      refuses("'up' is 'no'; it has to be true or false", router_options.router { up = "no" })
      refuses("one of drop, reset, unreachable", router_options.router { uninvited = "rst" })
      refuses("tcp: 'mapping' is 'none'; it has to be one of endpoint-independent", router_options.router {
        tcp = { mapping = "none" } })
      refuses("but not 0", router_options.router { value = 0 })
      refuses("'ports'", router_options.router { ports = { 5 } })
      refuses("'ports'", router_options.router { ports = { 6, 5 } })
      refuses("'ports'", router_options.router { ports = 5 })
      refuses("at most 16 ports", router_options.router { open_ports = { 0 } })
      refuses("at most 16 ports", router_options.router { open_ports = 80 })
      refuses("translates both or neither", router_options.router { nat = "open", udp = "symmetric/random" })
      refuses("translates both or neither", router_options.router { tcp = "udp-firewall" })
      refuses("no carrier before it", router_options.router { carrier = { carrier = "symmetric/random" } })
    end)

    it("say whether a router translates", function()
      for text, translates in pairs {
        ["open"] = false, ["udp-firewall"] = false, ["blocked"] = true, ["full-cone/equal"] = true,
      } do
        assert.equal(translates, router_options.translates(assert(router_options.router(text))))
      end
    end)

    it("are refused where the router's program would refuse them", function()
      for _, given in ipairs {
        "symmetric/preserving@5-5", { nat = "symmetric/preserving", ports = { 5, 5 } },
        { allocation = "preserving", ports = { 5, 5 } }, { udp = "full-cone/preserving@5-5" },
        { tcp = { allocation = "preserving", ports = { 5, 5 } } },
        { nat = "symmetric/preserving@5-5", udp = "full-cone/equal", tcp = "full-cone/equal" }, -- ICMP
      } do refuses("more than the one port of 5-5", router_options.router(given)) end
      assert(router_options.router { nat = "symmetric/preserving@5-6" })
      assert(router_options.router { nat = "symmetric/preserving", udp = "symmetric/random@5-5" })
    end)

    it("leave no way out of a blocked network by IPv6, unless it is said", function()
      for given, ipv6 in pairs {
        blocked = "none", open = "open", ["udp-firewall"] = "firewall", ["full-cone/equal"] = "firewall",
      } do
        assert.equal(ipv6, router_options.ipv6(assert(router_options.router(given))))
        assert.equal(ipv6, router_options.configuration(assert(router_options.router(given)), {}, {}).ipv6)
      end
      local said = assert(router_options.router { nat = "blocked", ipv6 = "firewall" })
      assert.equal("firewall", router_options.ipv6(said))
    end)

    it("are set one by one from text", function()
      local options = assert(router_options.router "symmetric/random")
      local function set(key, text)
        options = assert(router_options.set(options, key, text))
      end
      set("loss", "0.1")
      set("up", "false")
      set("nat", "full-cone/independent")
      set("ports", "40000-50000")
      set("open_ports", "80,443")
      set("udp", "restricted/random")
      set("udp.filtering", "none")
      set("tcp.timeout_s", "9")
      set("carrier.delay_ms", "7")
      set("carrier.udp.uninvited", "reset")
      assert.equal(0.1, options.loss)
      assert.is_false(options.up)
      assert.equal("full-cone/independent:1", options.nat)
      assert.same({ 40000, 50000 }, options.ports)
      assert.same({ 80, 443 }, options.open_ports)
      assert.same({ nat = "restricted/random", filtering = "none" }, options.udp)
      assert.same({ timeout_s = 9 }, options.tcp)
      assert.equal(7, options.carrier.delay_ms)
      assert.same({ uninvited = "reset" }, options.carrier.udp)
      refuses("'loss' is 'x'", router_options.set(options, "loss", "x"))
      refuses("'up' is 'yes'", router_options.set(options, "up", "yes"))
      refuses("no option 'los'", router_options.set(options, "los", "1"))
      refuses("unknown field 'los'", router_options.set(options, "udp.los", "1"))
      refuses("no option 'los'", router_options.set(options, "carrier.los", "1"))
      refuses("no option 'icmp.value'", router_options.set(options, "icmp.value", "1"))
      assert.equal(0.1, options.loss) -- as it was
    end)
  end)

  describe("configurations", function()
    local function configured(given)
      return router_options.configuration(assert(router_options.router(given)), { "30.2.1.2" }, { "192.168.1.0/24" })
    end

    it("give each transport what is meant for it", function()
      local made = configured { nat = "symmetric/independent:3@5-9", timeout_s = 100, transitory_s = 8 }
      assert.equal("symmetric", made.nat.type)
      assert.same({ "30.2.1.2" }, made.nat.external)
      assert.same({ type = "symmetric", delta = "independent", value = 3, ports = { 5, 9 }, timeout_s = 100,
        transitory_s = 8 }, made.nat.udp)
      assert.same({ type = "symmetric", delta = "independent", value = 3, ports = { 5, 9 }, timeout_s = 100,
        transitory_s = 8 }, made.nat.tcp)
      assert.same({ ports = { 5, 9 } }, made.nat.icmp)
      assert.same({ "192.168.1.0/24" }, made.inside)
    end)

    it("let a transport's fields go over its NAT, this over the router's, and that over its text", function()
      local made = configured {
        nat = "symmetric/random@1-9", mapping = "address-dependent", ports = { 20, 30 }, uninvited = "reset",
        udp = "full-cone/equal@40-50", tcp = { allocation = "dependent", filtering = "none" },
      }
      assert.same({ type = "full-cone", delta = "equal", ports = { 40, 50 }, uninvited = "reset" }, made.nat.udp)
      assert.same({ type = "symmetric", delta = "dependent", value = 1, mapping = "address-dependent",
        filtering = "none", ports = { 20, 30 }, uninvited = "reset" }, made.nat.tcp)
    end)

    it("leave out what a router without translation has no use for", function()
      local made = configured { nat = "udp-firewall", allocation = "random" }
      assert.same({}, made.nat.external)
      assert.same({ type = "udp-firewall" }, made.nat.udp)
    end)

    it("have the link twice", function()
      local made = configured { delay_ms = 10, loss = 0.5, up = false }
      assert.equal(10, made.out.delay_ms)
      assert.equal(0.5, made["in"].loss)
      assert.is_false(made["in"].up)
    end)
  end)
end)
