-- lines: makes a function that takes chunks of bytes and calls another one with each line of them; nil is the end, and
-- what is left the last line. The specs' own, as what is tested cannot be relied upon.
return function(take)
  local parts = {}
  return function(chunk)
    local from = 1
    for stop in (chunk or ""):gmatch "()\n" do
      parts[#parts + 1] = chunk:sub(from, stop - 1)
      take(table.concat(parts))
      parts, from = {}, stop + 1
    end
    if chunk and from <= #chunk then parts[#parts + 1] = chunk:sub(from) end
    if not chunk and #parts > 0 then take(table.concat(parts)) end
  end
end
