"""The scripts of the online queue. Redis runs each as one step, so what they keep is true at every moment.

Keys, all below maas:online: (v a version, t a tenant, both as 16 bytes; r a runner of a server; c a web process):
    versions      list: versions with waiting calls, in the order of their turns
    ring:v        list: tenants with waiting calls, in the order of their turns
    deficits:v    hash: the same tenants, and the work that each may still take in its turn
    line:v t      list: tickets of a tenant's calls (`calls.TICKET`)
    bodies:v      hash: bodies of calls that wait or are held; a ticket without one was cancelled
    depths        hash: work that waits, by version
    shares:v      hash: work that waits, by tenant
    bell          list: one token while calls wait and nobody has been told; servers block on it
    held:r        list: version, tenant and ticket of each call that a runner holds
    servers       set sorted by when each runner was last heard from;  ready  the same of servers that have loaded their models
    replies:c     list: call and answer, for the process that asked;  caller:c  is there while it lives
    labels        hash: what versions are called in figures
    drained:v:n   work taken in ten seconds

A call is dropped before it costs anything when its deadline has passed, its caller cancelled it, or the process of its
caller is gone.
"""

from maas import stamps
from maas.limits import COUNT
from maas.lines import Script
from maas.queue.calls import PREFIX

NAMES = f"""
local P = '{PREFIX}'
local VERSIONS, DEPTHS, BELL, SERVERS, READY = P .. 'versions', P .. 'depths', P .. 'bell', P .. 'servers', P .. 'ready'
local call = redis.call
local function ring_bell()
  if call('LLEN', VERSIONS) == 0 then call('DEL', BELL)
  elseif call('LLEN', BELL) == 0 then call('RPUSH', BELL, '1') end
end
local function account(version, tenant, work)
  if work == 0 then return end
  if call('HINCRBY', DEPTHS, version, work) <= 0 then call('HDEL', DEPTHS, version) end
  if call('HINCRBY', P .. 'shares:' .. version, tenant, work) <= 0 then call('HDEL', P .. 'shares:' .. version, tenant) end
end
"""

STAMPS = f"""
local function stamps_of(tenant)
  local found = call('MGET', '{stamps.PREFIX}' .. tenant, '{stamps.PREFIX}' .. string.rep('\\0', 16))
  return (found[1] or '') .. (found[2] or '')
end
"""
STALE = 3

# Room for a tenant: at most weight times the room that is left for everybody. One that floods alone gets half (weight 1),
# n of them get n / (n + 1), so there is always room for one more: dynamic thresholds of Choudhury and Hahne, "Dynamic Queue
# Length Thresholds for Shared-Memory Packet Switches", 1998.
# KEYS and what follows in ARGV: rate limits in which the call is counted first (maas.limits), none if it has been.
# ARGV: version, tenant, call, ticket, body, caller, work, weight, limit, stamps by which the call was prepared (maas.stamps; ''
# if by none). Returns 0, 1 when the tenant's share of the queue is full, 2 when all of it is, or 3 when those are not its stamps
# any more and nothing was done; then how many seconds the waiting work will take by what was done lately (-1: not known); and
# what the rate limits answered, which may be that the call does not pass: then it is not in line.
PUSH = Script(
    NAMES
    + COUNT
    + STAMPS
    + """
local counted = {0}
if ARGV[10] ~= '' and ARGV[10] ~= stamps_of(ARGV[2]) then return {3, 0, counted} end
if #KEYS > 0 then counted = count({unpack(ARGV, 11)}) end
if counted[1] == 1 then return {0, 0, counted} end
local version, tenant = ARGV[1], ARGV[2]
local work, weight, limit = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local total = tonumber(call('HGET', DEPTHS, version) or '0')
local mine = tonumber(call('HGET', P .. 'shares:' .. version, tenant) or '0')
local full = total + work > limit
if full or mine + work > weight * (limit - total) then
  local now = tonumber(call('TIME')[1])
  local window = math.floor(now / 10)
  local drained = P .. 'drained:' .. version .. ':'
  local done = (call('GET', drained .. window) or 0) + (call('GET', drained .. (window - 1)) or 0)
  local seconds = -1
  if done > 0 then seconds = math.ceil((full and total or mine) * (10 + now % 10) / done) end
  return {full and 2 or 1, seconds, counted}
end
local caller = P .. 'caller:' .. ARGV[6]
if call('EXISTS', caller) == 0 then call('SET', caller, '1', 'EX', 30) end
if call('HSETNX', P .. 'bodies:' .. version, ARGV[3], ARGV[5]) == 0 then return {0, 0, counted} end
account(version, tenant, work)
call('RPUSH', P .. 'line:' .. version .. tenant, ARGV[4])
if call('HSETNX', P .. 'deficits:' .. version, tenant, '0') == 1 and call('RPUSH', P .. 'ring:' .. version, tenant) == 1 then
  call('RPUSH', VERSIONS, version)
  ring_bell()
end
return {0, 0, counted}
"""
)

# Puts what a runner held back in front of its lines. `returned` counts a return; a call that came back before is answered with
# ARGV[1] instead: what kills two servers shall not kill a third.
PUT_BACK_PART = """
local function lives(ticket, now, callers)
  local caller, deadline = string.sub(ticket, 17, 32), struct.unpack('>d', ticket, 37)
  if deadline <= now then return false end
  if callers[caller] == nil then callers[caller] = call('EXISTS', P .. 'caller:' .. caller) == 1 end
  return callers[caller]
end
local function stand(version, tenant, ticket)
  account(version, tenant, struct.unpack('>I4', ticket, 33))
  call('LPUSH', P .. 'line:' .. version .. tenant, ticket)
  if call('HSETNX', P .. 'deficits:' .. version, tenant, '0') == 1 and call('LPUSH', P .. 'ring:' .. version, tenant) == 1 then
    call('RPUSH', VERSIONS, version)
  end
end
local function put_back(runner, returned, now)
  local callers = {}
  while true do
    local held = call('RPOP', P .. 'held:' .. runner)
    if not held then break end
    local version, tenant, ticket = string.sub(held, 1, 16), string.sub(held, 17, 32), string.sub(held, 33)
    local id, caller, returns = string.sub(ticket, 1, 16), string.sub(ticket, 17, 32), string.byte(ticket, 46) + returned
    local waits = call('HEXISTS', P .. 'bodies:' .. version, id) == 1
    if waits and lives(ticket, now, callers) and returns < 2 then
      stand(version, tenant, string.sub(ticket, 1, 45) .. string.char(returns))
    else
      call('HDEL', P .. 'bodies:' .. version, id)
      if waits and returns >= 2 then
        call('RPUSH', P .. 'replies:' .. caller, id .. ARGV[1])
        call('EXPIRE', P .. 'replies:' .. caller, 60)
      end
    end
  end
end
"""

# Deficit round robin (Shreedhar and Varghese, "Efficient Fair Queuing Using Deficit Round Robin", 1995) with the weights as
# quanta. A quantum is one short input and not a batch's worth, so that a batch holds a few whole rounds and no weight makes
# another tenant wait for a batch. Who is interrupted by the end of a batch goes on in the next one, before everybody else.
# ARGV: answer for calls that came back twice, runner, now, limit, versions to leave alone. Returns the version (or ''), how
# many versions calls are left for, and tenant, ticket and body of each call.
TAKE = Script(
    NAMES
    + PUT_BACK_PART
    + """
local runner, now, limit = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local callers, skipped, taken = {}, {}, {}
for index = 5, #ARGV do skipped[ARGV[index]] = true end

local function open(version, tenant)
  return {
    line = P .. 'line:' .. version .. tenant, tickets = {}, next = 1, gone = 0, work = 0,
    deficit = tonumber(call('HGET', P .. 'deficits:' .. version, tenant) or '0'),
  }
end
-- The tenant's next call that is still wanted, or nil; the others are passed over for nothing.
local function head(version, mine)
  while not mine.body do
    if mine.next > #mine.tickets then
      mine.tickets, mine.next = call('LRANGE', mine.line, mine.gone, mine.gone + limit - 1), 1
    end
    local ticket = mine.tickets[mine.next]
    if not ticket then return nil end
    mine.cost, mine.id = struct.unpack('>I4', ticket, 33), string.sub(ticket, 1, 16)
    local bodies = P .. 'bodies:' .. version
    if lives(ticket, now, callers) then mine.body = call('HGET', bodies, mine.id) else call('HDEL', bodies, mine.id) end
    if not mine.body then mine.next, mine.gone, mine.work = mine.next + 1, mine.gone + 1, mine.work + mine.cost end
  end
  return mine.tickets[mine.next]
end
local function take_head(version, tenant, mine, ticket)
  taken[#taken + 1], taken[#taken + 2], taken[#taken + 3] = tenant, ticket, mine.body
  call('RPUSH', P .. 'held:' .. runner, version .. tenant .. ticket)
  mine.next, mine.gone, mine.work, mine.body = mine.next + 1, mine.gone + 1, mine.work + mine.cost, nil
end
local function close(version, tenant, mine)
  if mine.gone > 0 then call('LPOP', mine.line, mine.gone) end
  account(version, tenant, -mine.work)
  if mine.done then call('HDEL', P .. 'deficits:' .. version, tenant)
  else call('HSET', P .. 'deficits:' .. version, tenant, mine.deficit) end
end

local function serve(version)
  local ring, total, round, mine_of, first = P .. 'ring:' .. version, 0, {}, {}, nil
  local alone = call('LLEN', ring) == 1
  while total < limit do
    local tenant = call('LPOP', ring) or table.remove(round, 1)
    if not tenant then break end
    local mine = mine_of[tenant] or open(version, tenant)
    mine_of[tenant] = mine
    local ticket = head(version, mine)
    local quantum = alone and limit or (ticket and math.max(1, string.byte(ticket, 45)) or 0)
    mine.deficit = mine.deficit + quantum
    while ticket and mine.cost <= mine.deficit and total < limit and (total == 0 or total + mine.cost <= limit) do
      mine.deficit, total = mine.deficit - mine.cost, total + mine.cost
      take_head(version, tenant, mine, ticket)
      ticket = head(version, mine)
    end
    mine.done = not ticket
    if alone and total > 0 then mine.deficit = 0 end
    if ticket and not alone and mine.cost <= mine.deficit then
      mine.deficit, first = mine.deficit - quantum, tenant
      break
    end
    if ticket then round[#round + 1] = tenant end
    if alone and total > 0 then break end
  end
  for index = 1, #round do call('RPUSH', ring, round[index]) end
  if first then call('LPUSH', ring, first) end
  for tenant, mine in pairs(mine_of) do close(version, tenant, mine) end
  if total > 0 then
    local drained = P .. 'drained:' .. version .. ':' .. math.floor(call('TIME')[1] / 10)
    if call('INCRBY', drained, total) == total then call('EXPIRE', drained, 30) end
  end
  return total > 0
end

put_back(runner, 1, now)
local found = ''
for _ = 1, call('LLEN', VERSIONS) do
  local version = call('LPOP', VERSIONS)
  if not skipped[version] and serve(version) then found = version end
  if call('EXISTS', P .. 'ring:' .. version) == 1 then call('RPUSH', VERSIONS, version) end
  if found ~= '' then break end
end
ring_bell()
return {found, call('LLEN', VERSIONS), taken}
"""
)

# ARGV: unused, runner, now. What a runner cannot run yet stands in line again, as if it had never been taken.
PUT_BACK = Script(NAMES + PUT_BACK_PART + "put_back(ARGV[2], 0, tonumber(ARGV[3])) ring_bell()")

# ARGV: as for TAKE, now, seconds after which a silent server is dead, the server if it is ready (or ''), its runners. Returns
# how many runners were found dead.
BEAT = Script(
    NAMES
    + PUT_BACK_PART
    + """
local now = tonumber(call('TIME')[1])
local ended = '(' .. (now - tonumber(ARGV[3]))
for index = 5, #ARGV do call('ZADD', SERVERS, now, ARGV[index]) end
if ARGV[4] ~= '' then call('ZADD', READY, now, ARGV[4]) end
call('ZREMRANGEBYSCORE', READY, '-inf', ended)
local dead = call('ZRANGE', SERVERS, '-inf', ended, 'BYSCORE')
for _, runner in ipairs(dead) do
  put_back(runner, 1, tonumber(ARGV[2]))
  call('ZREM', SERVERS, runner)
end
ring_bell()
return #dead
"""
)

# ARGV: seconds after which a silent server is dead. Returns how many servers are ready.
READY = Script(NAMES + "return call('ZCOUNT', READY, call('TIME')[1] - ARGV[1], '+inf')")
