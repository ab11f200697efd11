-- The shop's mixture for wrk; PRODUCTS is how many there are. Popular products are asked for more often (Zipf, exponent 1).
local products = tonumber(os.getenv("PRODUCTS") or "10000")
local harmonic = math.log(products) + 0.5772

-- A rank by the inverse of 1/rank's sum, scattered over the ids.
local function product()
   local rank = math.floor(math.exp(math.random() * harmonic - 0.5772))
   return (rank * 1000000007) % products + 1
end

local json = { ["Content-Type"] = "application/json" }
local kinds = {
   { 300, function() return wrk.format("GET", "/products/" .. product()) end },
   { 180, function() return wrk.format("GET", "/products/" .. product() .. "/styles") end },
   { 90, function() return wrk.format("GET", "/products/" .. product() .. "/related") end },
   { 100, function() return wrk.format("GET", "/products/" .. (products - math.random(0, math.max(math.floor(products / 10) - 1, 0)))) end },
   { 60, function() return wrk.format("GET", "/products?count=5&page=" .. math.random(1, math.max(1, math.min(100, math.floor(products / 5))))) end },
   { 110, function() return wrk.format("GET", "/reviews?sort=relevant&product_id=" .. product()) end },
   { 70, function() return wrk.format("GET", "/reviews/meta?product_id=" .. product()) end },
   { 75, function() return wrk.format("GET", "/qa/questions?product_id=" .. product()) end },
   { 5, function() return wrk.format("PUT", "/reviews/" .. product() .. "/helpful") end },
   { 5, function() return wrk.format("POST", "/cart", json, '{"sku_id":1}') end },
   { 5, function() return wrk.format("POST", "/interactions", json, '{"element":"button","widget":"wrk","time":"now"}') end },
}

-- Each thread has dice of its own.
local threads = 0
function setup(thread)
   threads = threads + 1
   thread:set("number", threads)
end

function init()
   math.randomseed(os.time() + number * 7919)
end

function request()
   local dice = math.random(1, 1000)
   for _, kind in ipairs(kinds) do
      dice = dice - kind[1]
      if dice <= 0 then
         return kind[2]()
      end
   end
end
